//! The number formats, compared with independent evidence: recorded vectors of another
//! implementation, and exhaustive or brute-force searches over the codes.
mod codes;
mod rows;
mod vectors;
