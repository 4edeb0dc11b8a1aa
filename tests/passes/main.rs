//! The compiler on the real models, without their weights, and on the fixtures.
mod common;
mod fusion_doc;
mod kernels;
mod models;
mod report;
mod worth;
