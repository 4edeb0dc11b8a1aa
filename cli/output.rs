//! Writes one F32 tensor as a safetensors file.
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `values` as the tensor `name` of extents `shape`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
    assert!(shape.iter().product::<usize>() == values.len(), "{shape:?} of {} values", values.len());
    let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [0, values.len() * 4] });
    let mut header = serde_json::json!({ name: entry }).to_string();
    // Tensor data start at a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for x in values {
            file.write_all(&x.to_le_bytes())?;
        }
        file.flush()
    };
    write().with_context(|| path.display().to_string())
}
