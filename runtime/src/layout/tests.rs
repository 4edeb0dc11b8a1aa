//! Layout files: built, interrupted, damaged.
use super::*;
use crate::cpu::product::Packing;
use crate::{Meta, Weights};
use ds4_ir::module::Decl;
use ds4_ir::plan::Plan;
use ds4_ir::{Class, Scalar, TensorType, WeightSource};
use std::fs;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ds4-layout-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("a.layout")
    }

    fn part(&self) -> PathBuf {
        self.0.join("a.layout.part")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is no failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes of a row of 64 elements, and of a matrix of 32 such rows.
const ROW: u64 = 68;
const MATRIX: u64 = 32 * ROW;

/// `a` and `b` share their bytes; the second expert of `f` is the third of `e`.
fn artifact(folder: &Folder) -> Artifact {
    let bytes: Vec<u8> = (0..8 * MATRIX).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    fs::write(folder.0.join("w.bin"), bytes).unwrap();
    let part =
        |offset, count| Part { role: Role::Codes, file: 0, offset, bytes: MATRIX, stride: MATRIX, count };
    let entry = |name: &str, dims: &[u32], parts: Vec<Part>| WeightEntry {
        name: name.to_string(),
        ty: TensorType::fixed(Scalar::Q8_0, dims),
        layout: Layout::AsStored,
        parts,
    };
    let entries = vec![
        entry("a", &[32, 64], vec![part(MATRIX, 1)]),
        entry("b", &[32, 64], vec![part(MATRIX, 1)]),
        entry("c", &[32, 64], vec![part(0, 1)]),
        entry("e", &[3, 32, 64], vec![part(2 * MATRIX, 3)]),
        entry("f", &[2, 32, 64], vec![part(6 * MATRIX, 1), part(4 * MATRIX, 1)]),
    ];
    let decl = |e: &WeightEntry| Decl { name: e.name.clone(), ty: e.ty.clone() };
    let module = Module {
        name: "m".to_string(),
        class: Class::Fast,
        ctx: 8,
        vocab: 8,
        weights: entries.iter().map(decl).collect(),
        states: vec![],
        params: vec![],
        funcs: vec![],
        graphs: vec![],
    };
    let meta = Meta {
        compiler: String::new(),
        model: String::new(),
        identity: "1".to_string(),
        bos: 0,
        eos: vec![],
        files: vec![],
        samples: vec![],
    };
    let table = WeightTable { files: vec!["w.bin".to_string()], entries };
    let packings = ["a", "b", "e", "f"].map(|name| (name, Packing::Stored));
    let layouts = Some(lay_out(&table, &packings.into(), "a.layout".to_string()));
    let plan = Plan { launches: vec![], buckets: vec![] };
    Artifact {
        meta,
        module,
        plan,
        table,
        tokenizer: None,
        kernels: None,
        selftest: None,
        layouts,
        tuning: None,
    }
}

fn build_with(artifact: &mut Artifact, folder: &Folder, cancelled: bool) -> Result<Built> {
    build(artifact, &folder.0, 2, &AtomicBool::new(cancelled), &mut |_, _| ())
}

fn opened(artifact: &Artifact, folder: &Folder) -> Result<Weights> {
    let mut weights = Weights::open(&artifact.module, &artifact.table, &folder.0)?;
    open(artifact, &mut weights, &folder.0)?;
    Ok(weights)
}

/// What opening is refused with; it must name the file and the way out.
fn refused(artifact: &Artifact, folder: &Folder) -> String {
    let why = opened(artifact, folder).err().expect("it is refused").to_string();
    assert!(why.contains("a.layout: ") && why.contains("`ds4c layout`"), "{why}");
    why
}

/// Changes one byte, and the time of change with it unless `quietly`.
fn flip(path: &Path, at: u64, quietly: bool) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
    let time = if quietly { modified } else { SystemTime::now() + Duration::from_secs(10) };
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Makes of a finished file one that was interrupted: the chunks `lost` are not whole.
fn interrupt(folder: &Folder, chunks: usize, lost: &[usize]) {
    let mut bytes = fs::read(folder.file()).unwrap();
    let end = Header::bytes(chunks) as usize;
    bytes[end - 32..end].fill(0);
    for i in lost {
        let at = Header::entry_at(*i) as usize;
        let offset = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        bytes[at + 16..at + 48].fill(0);
        bytes[offset..offset + 100].fill(0);
    }
    fs::write(folder.part(), bytes).unwrap();
    fs::remove_file(folder.file()).unwrap();
}

#[test]
fn equal_sources_are_packed_once_and_read_back() {
    let folder = Folder::new();
    let mut artifact = artifact(&folder);
    let built = build_with(&mut artifact, &folder, false).unwrap();
    // a = b; e has three; f adds one.
    assert_eq!((built.chunks, built.kept), (5, 0));
    assert_eq!(built.bytes, fs::metadata(folder.file()).unwrap().len());
    assert_eq!(summary(artifact.layouts.as_ref().unwrap()).file_bytes, 5 * MATRIX);
    let weights = opened(&artifact, &folder).unwrap();
    for i in 0..artifact.module.weights.len() {
        let (packed, stored) = (weights.packed(i), weights.weight(i));
        assert_eq!((packed.scalar, packed.dims, packed.items), (stored.scalar, stored.dims, stored.items));
    }
    let starts = |i: usize| weights.packed(i).items.iter().map(|(c, _)| c.as_ptr()).collect::<Vec<_>>();
    assert_eq!(starts(0), starts(1));
    assert_eq!(starts(3)[2], starts(4)[1]);
    // What has a packing is read from the layout file, the rest from the published one.
    assert_ne!(starts(0)[0], weights.weight(0).items[0].0.as_ptr());
    assert_eq!(starts(2)[0], weights.weight(2).items[0].0.as_ptr());
    // The artifact carries it.
    let path = folder.0.join("a.ds4");
    artifact.write(&path).unwrap();
    assert_eq!(Artifact::read(&path).unwrap().layouts, artifact.layouts);
}

#[test]
fn what_is_whole_of_an_interrupted_file_is_kept() {
    let folder = Folder::new();
    let mut artifact = artifact(&folder);
    let cancelled = build_with(&mut artifact, &folder, true).unwrap_err();
    assert!(matches!(cancelled, Error::Cancelled) && !folder.file().exists());
    let chunks = build_with(&mut artifact, &folder, false).unwrap().chunks;
    assert!(!folder.part().exists());
    let whole = fs::read(folder.file()).unwrap();
    interrupt(&folder, chunks, &[1, 4]);
    assert!(refused(&artifact, &folder).contains("missing"));
    let mut again = artifact.clone();
    assert_eq!(build_with(&mut again, &folder, false).unwrap().kept, chunks - 2);
    assert_eq!(fs::read(folder.file()).unwrap(), whole);
    assert_eq!(again.layouts.as_ref().unwrap().header, artifact.layouts.as_ref().unwrap().header);
    // A chunk that claims to be whole and is not is packed again.
    interrupt(&folder, chunks, &[0]);
    flip(&folder.part(), whole.len() as u64 - MATRIX, true);
    assert_eq!(build_with(&mut again, &folder, false).unwrap().kept, chunks - 2);
    assert_eq!(fs::read(folder.file()).unwrap(), whole);
    // One of other weights is begun anew.
    interrupt(&folder, chunks, &[0]);
    let mut other = Artifact { layouts: artifact.layouts.clone(), ..artifact };
    other.meta.identity = "2".to_string();
    other.layouts.as_mut().unwrap().header.clear();
    assert_eq!(build_with(&mut other, &folder, false).unwrap().kept, 0);
}

#[test]
fn a_finished_file_is_kept_unless_it_is_damaged() {
    let folder = Folder::new();
    let mut artifact = artifact(&folder);
    let built = build_with(&mut artifact, &folder, false).unwrap();
    assert_eq!(build_with(&mut artifact, &folder, false).unwrap().kept, built.chunks);
    let whole = fs::read(folder.file()).unwrap();
    flip(&folder.file(), whole.len() as u64 - MATRIX, true);
    assert!(build_with(&mut artifact, &folder, false).unwrap().kept < built.chunks);
    assert_eq!(fs::read(folder.file()).unwrap(), whole);
}

#[test]
fn what_is_not_the_file_that_was_built_is_refused() {
    let folder = Folder::new();
    let mut artifact = artifact(&folder);
    build_with(&mut artifact, &folder, false).unwrap();
    let whole = fs::read(folder.file()).unwrap();
    let again = || fs::write(folder.file(), &whole).unwrap();
    let end = whole.len() as u64 - MATRIX;
    for at in [0, 8, 12, 20, 60, Header::bytes(5) - 1] {
        flip(&folder.file(), at, true);
        refused(&artifact, &folder);
        again();
    }
    fs::write(folder.file(), &whole[..whole.len() - 1]).unwrap();
    assert!(refused(&artifact, &folder).contains("expected"));
    fs::write(folder.file(), &whole[..40]).unwrap();
    refused(&artifact, &folder);
    again();
    // With another time of change chunks are looked at; `verify` looks at all of them at any time.
    opened(&artifact, &folder).unwrap();
    flip(&folder.file(), end, false);
    assert!(refused(&artifact, &folder).contains("chunk 4"));
    let mut quiet = artifact.clone();
    quiet.layouts.as_mut().unwrap().mark = marked(&folder.file()).unwrap();
    opened(&quiet, &folder).unwrap();
    let none = AtomicBool::new(false);
    assert!(verify(&quiet, &folder.0, &none, &mut |_, _| ()).is_err());
    again();
    verify(&quiet, &folder.0, &none, &mut |_, _| ()).unwrap();
}

#[test]
fn entries_that_no_packing_has_are_refused() {
    let folder = Folder::new();
    let mut good = artifact(&folder);
    build_with(&mut good, &folder, false).unwrap();
    let entry = |change: &dyn Fn(&mut WeightEntry)| {
        let mut bad = good.clone();
        change(&mut bad.layouts.as_mut().unwrap().table.entries[0]);
        opened(&bad, &folder).err().expect("it is refused").to_string()
    };
    assert!(entry(&|e| e.layout = Layout::Repacked("unheard".to_string())).contains("packing"));
    assert!(entry(&|e| e.layout = Layout::AsStored).contains("packing"));
    assert!(entry(&|e| e.name = "z".to_string()).contains("no such weight"));
    assert!(entry(&|e| e.ty = TensorType::fixed(Scalar::Q8_0, &[64, 32])).contains("no such weight"));
    assert!(entry(&|e| e.parts[0].bytes -= 1).contains("packing"));
    assert!(entry(&|e| e.parts[0].count = 2).contains("packing"));
    entry(&|e| e.parts[0].offset += 1 << 40);
    entry(&|e| e.parts.clear());
}

#[test]
fn neighbours_of_one_distance_are_one_part() {
    let of = |offsets: &[u64]| -> Vec<(u64, u64, u32)> {
        parts(offsets.iter().copied(), 10).iter().map(|p| (p.offset, p.stride, p.count)).collect()
    };
    assert_eq!(of(&[0, 16, 32]), [(0, 16, 3)]);
    assert_eq!(of(&[5]), [(5, 10, 1)]);
    assert_eq!(of(&[0, 16, 40, 64, 64]), [(0, 16, 2), (40, 24, 2), (64, 10, 1)]);
    assert_eq!(of(&[32, 0]), [(32, 10, 1), (0, 10, 1)]);
}
