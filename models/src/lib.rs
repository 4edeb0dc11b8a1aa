//! (laid down with its first piece)
pub mod chat;
pub mod tokenizer;
