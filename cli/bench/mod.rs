//! Measuring how fast a model runs here, beside what the machine's memory allows and the plan predicts.
pub mod chart;
pub mod measure;
pub mod result;
