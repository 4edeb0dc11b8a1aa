//! Builds a layout file: chunk by chunk, into a file of another name until all are there.
//!
//! An interrupted build goes on where it stood: a chunk whose checksum stands in the header and matches
//! its bytes is kept. A finished file of the same content is kept as it is.
use super::file::{self, Entry, Header, Stop};
use super::{Chunk, chunks, damaged, key, marked, path};
use crate::weights::Weights;
use crate::{Artifact, Error, Result};
use ds4_ir::WeightSource;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that are packed at once.
const BLOCK: u64 = 4 << 20;

/// What building took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Built {
    /// Chunks of the file.
    pub chunks: usize,
    /// Chunks that were there already.
    pub kept: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Builds the layout file of an artifact that lies in `folder`, or completes one, on `threads`
/// threads, and writes into the artifact what it must look like. `progress` is told the bytes done and
/// all.
///
/// # Errors
/// Weights that cannot be read, a disk without room, a file that cannot be written, and
/// [`Error::Cancelled`]; what is whole by then is kept.
pub fn build(
    artifact: &mut Artifact,
    folder: &Path,
    threads: usize,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Built> {
    let Some(layouts) = artifact.layouts.clone() else { return Ok(Built::default()) };
    let weights = Weights::open(&artifact.module, &artifact.table, folder)?;
    let chunks = chunks(&artifact.module, &layouts)?;
    let total = chunks.iter().map(|c| c.bytes).sum();
    let key = key(artifact, &layouts);
    let path = path(&layouts, folder);
    let mut tell = |done| {
        progress(done, total);
        if cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    };
    let work = Work::open(&path, key, &chunks, &mut tell)?;
    let kept = work.kept();
    let (header, bytes) = work.finish(&weights, threads, &mut tell)?;
    let layouts = artifact.layouts.as_mut().expect("looked at above");
    if !layouts.header.is_empty() && layouts.header != header {
        return Err(damaged(&path, "this build packs otherwise than the one that compiled the artifact"));
    }
    layouts.header = header;
    layouts.mark = marked(&path)?;
    Ok(Built { chunks: chunks.len(), kept, bytes })
}

/// A file that is being built.
struct Work<'a> {
    path: PathBuf,
    chunks: &'a [Chunk],
    header: Header,
    /// `None` if the finished file is there and whole.
    part: Option<File>,
}

impl<'a> Work<'a> {
    /// Takes over what is whole of a finished or an unfinished file.
    fn open(
        path: &Path,
        key: [u8; 32],
        chunks: &'a [Chunk],
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Work<'a>> {
        let empty = |c: &Chunk| Entry { offset: c.offset, bytes: c.bytes, hash: None };
        let mut header = Header { key, chunks: chunks.iter().map(empty).collect() };
        let same = |found: &Header| {
            let place = |e: &Entry| (e.offset, e.bytes);
            found.key == key && found.chunks.iter().map(place).eq(header.chunks.iter().map(place))
        };
        let finished = file::read_finished(path, chunks.len()).ok().filter(same);
        if let Some(found) = finished {
            let whole = kept(path, &found, tell)?;
            if whole.iter().all(Option::is_some) {
                return Ok(Work { path: path.to_path_buf(), chunks, header: found, part: None });
            }
        }
        let part = part_of(path);
        let (found, _) = match File::open(&part).and_then(|mut f| Header::read(&mut f, chunks.len())) {
            Ok(Ok(found)) if same(&found.0) => found,
            // No file, or one of another content: it is begun anew.
            _ => (header.clone(), false),
        };
        if found.chunks.iter().any(|c| c.hash.is_some()) {
            let whole = kept(&part, &found, tell)?;
            header.chunks.iter_mut().zip(whole).for_each(|(chunk, hash)| chunk.hash = hash);
        }
        let missing = header.chunks.iter().filter(|c| c.hash.is_none()).map(|c| c.bytes).sum();
        room(path, missing)?;
        let open = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part)?;
            file.write_all(&header.to_bytes(false))?;
            file.set_len(header.file_bytes())?;
            Ok(file)
        };
        let file = open().map_err(Error::io(&part))?;
        Ok(Work { path: path.to_path_buf(), chunks, header, part: Some(file) })
    }

    fn kept(&self) -> usize {
        self.header.chunks.iter().filter(|c| c.hash.is_some()).count()
    }

    /// Packs what is missing; the header's checksum as hex, and the length of the file.
    fn finish(
        mut self,
        weights: &Weights,
        threads: usize,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(String, u64)> {
        let result = |header: &Header| (header.digest().to_hex().to_string(), header.file_bytes());
        let Some(mut file) = self.part.take() else { return Ok(result(&self.header)) };
        let part = part_of(&self.path);
        self.pack_missing(weights, &file, threads, tell).map_err(|stop| stop.at(&part))?;
        let mut seal = || -> io::Result<()> {
            // Chunks are on disk before the header says that all are there, and the header before the
            // file takes its name.
            file.sync_all()?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&self.header.to_bytes(true))?;
            file.sync_all()?;
            fs::rename(&part, &self.path)?;
            sync_folder(&self.path)
        };
        seal().map_err(Error::io(&part))?;
        Ok(result(&self.header))
    }

    /// Packs the missing chunks on several threads; this one tells how far they are.
    fn pack_missing(
        &mut self,
        weights: &Weights,
        file: &File,
        threads: usize,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> std::result::Result<(), Stop> {
        let (mut missing, mut bytes) = (Vec::new(), 0);
        for (i, entry) in self.header.chunks.iter().enumerate() {
            match entry.hash {
                Some(_) => bytes += entry.bytes,
                None => missing.push(i),
            }
        }
        let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(bytes), AtomicBool::new(false));
        let (chunks, header) = (self.chunks, Mutex::new(&mut self.header));
        let work = || -> io::Result<()> {
            while let Some(i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let hash = pack(&chunks[*i], weights, file, &stop, &done)?;
                let Some(hash) = hash else { return Ok(()) };
                let mut header = header.lock().expect("no thread panics while it holds the header");
                header.chunks[*i].hash = Some(hash);
                let entry = header.entry(*i);
                write_at(file, &entry, Header::entry_at(*i))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let mut asked = Ok(());
            while workers.iter().any(|w| !w.is_finished()) {
                std::thread::sleep(Duration::from_millis(5));
                if asked.is_ok() {
                    asked = tell(done.load(Ordering::Relaxed));
                    stop.store(asked.is_err(), Ordering::Relaxed);
                }
            }
            for worker in workers {
                worker.join().expect("packing does not panic").map_err(Stop::Io)?;
            }
            asked.map_err(Stop::Asked)?;
            tell(done.load(Ordering::Relaxed)).map_err(Stop::Asked)
        })
    }
}

/// Packs one matrix into its chunk; its checksum, `None` if the work is to stop.
fn pack(
    chunk: &Chunk,
    weights: &Weights,
    file: &File,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> io::Result<Option<[u8; 32]>> {
    let m = weights.weight(chunk.weight).matrix(chunk.matrix);
    // Equal numbers of rows take equal bytes, all of them those of the chunk.
    let granule = chunk.packing.granule();
    let granules = m.rows.div_ceil(granule) as u64;
    let size = chunk.bytes / granules;
    assert!(size * granules == chunk.bytes, "{} bytes of {granules} granules", chunk.bytes);
    let step = (BLOCK / size.max(1)).max(1);
    let (mut hasher, mut block) = (blake3::Hasher::new(), Vec::new());
    for first in (0..granules).step_by(step as usize) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let last = (first + step).min(granules);
        let rows = first as usize * granule..(last as usize * granule).min(m.rows);
        block.resize(((last - first) * size) as usize, 0);
        chunk.packing.pack(&m, rows, &mut block);
        write_at(file, &block, chunk.offset + first * size)?;
        hasher.update(&block);
        done.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

/// The checksums of the chunks that are whole.
fn kept(
    path: &Path,
    header: &Header,
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<Option<[u8; 32]>>> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut done = 0;
    let mut whole = Vec::new();
    for entry in &header.chunks {
        let mut read = |bytes| {
            done += bytes;
            tell(done)
        };
        let matches = file::matches(&mut file, entry, &mut read).map_err(|stop| stop.at(path))?;
        whole.push(entry.hash.filter(|_| matches));
    }
    Ok(whole)
}

/// The name of the file while it is being built.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    path.with_file_name(name)
}

/// Whether the disk has room for so many bytes.
fn room(path: &Path, bytes: u64) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    match crate::process::free_disk_bytes(folder) {
        Some(free) if free < bytes => {
            Err(damaged(path, format!("needs {bytes} bytes more, the disk has room for {free}")))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let n = file.seek_write(bytes, at)?;
        (bytes, at) = (&bytes[n..], at + n as u64);
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
