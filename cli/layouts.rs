//! Layout files, built with a bar that shows how far they are.
use crate::{interrupt, progress};
use anyhow::Result;
use ds4_runtime::{Artifact, layout};
use std::path::Path;

/// Builds the layout file of an artifact that lies in `folder`, or completes it; a line on standard
/// error says what it holds.
///
/// # Errors
/// Weights that cannot be read, a file that cannot be written, Ctrl-C.
pub fn build(artifact: &mut Artifact, folder: &Path, threads: usize) -> Result<()> {
    let threads =
        if threads == 0 { std::thread::available_parallelism().map_or(1, |n| n.get()) } else { threads };
    let bar = progress::bytes("packing weights");
    let built = layout::build(artifact, folder, threads, interrupt::flag(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let built = built?;
    if let Some(layouts) = &artifact.layouts {
        let (file, kept) = (folder.join(&layouts.table.files[0]), built.kept);
        eprintln!(
            "{}: {} matrices, {kept} of them kept, {} bytes",
            file.display(),
            built.chunks,
            built.bytes
        );
    }
    Ok(())
}

/// A line per packing: what the layout file holds and what the same weights are as published.
pub fn describe(artifact: &Artifact) -> String {
    let Some(layouts) = &artifact.layouts else { return "layouts   all weights as stored\n".to_string() };
    let summary = layout::summary(layouts);
    let mut text = format!(
        "layouts   {}, {} bytes beside the published files\n",
        layouts.table.files[0], summary.file_bytes
    );
    for ((packing, scalar), (count, bytes, stored)) in &summary.packings {
        text +=
            &format!("  {scalar:<9} {count:>5} weights {bytes:>15} bytes as {packing}, {stored} stored\n");
    }
    text
}
