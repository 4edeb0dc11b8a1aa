//! (laid down with its first piece)
pub mod tokenizer;
