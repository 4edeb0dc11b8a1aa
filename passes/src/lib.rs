//! (laid down with its first piece)
