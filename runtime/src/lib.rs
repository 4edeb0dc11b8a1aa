//! (laid down with its first piece)
pub mod store;
