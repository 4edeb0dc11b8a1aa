//! The weights of a module, mapped from their files.
//!
//! Every range is proven to lie inside its file before anything reads it. Nothing is copied. A weight
//! that has a packing is there twice, as published and packed; only what is read takes memory.
use crate::cpu::product::Packing;
use crate::{Error, Result};
use ds4_ir::view::WeightView;
use ds4_ir::{Layout, Module, Part, Role, Scalar, TensorType, WeightEntry, WeightSource, WeightTable};
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Most experts or parts that a weight may name; Pro has 384 experts.
const ITEMS_MAX: u64 = 1 << 16;

struct Mapped {
    path: PathBuf,
    map: Mmap,
}

/// Codes and scales of one matrix as (file, start, end).
type Range = (usize, usize, usize);

/// Codes and scales of each matrix. The slices point into [`Weights::files`], which live as long.
type Items = Vec<(&'static [u8], &'static [u8])>;

struct Weight {
    scalar: Scalar,
    dims: Vec<usize>,
    items: Items,
    /// The same matrices as kernels of a packing read them.
    packed: Option<(Packing, Items)>,
}

/// All weights of a module, by index of [`Module::weights`].
pub struct Weights {
    weights: Vec<Weight>,
    files: Vec<Mapped>,
    layout_files: Vec<Mapped>,
}

impl Weights {
    /// Maps the files of `table` and finds the ranges of every weight that `module` declares.
    ///
    /// Relative paths are looked up from `base` first, then from the working folder.
    ///
    /// # Errors
    /// A file that cannot be mapped, a weight without entry, an entry whose type or bytes are not
    /// those declared.
    pub fn open(module: &Module, table: &WeightTable, base: &Path) -> Result<Weights> {
        let files = table.files.iter().map(|f| map(Path::new(f), base)).collect::<Result<Vec<_>>>()?;
        let mut weights = Vec::new();
        for decl in &module.weights {
            let entry = table.entries.iter().find(|e| e.name == decl.name);
            let entry = entry.ok_or_else(|| {
                Error::Invalid(format!("{}: expected an entry in the weight table, got none", decl.name))
            })?;
            if entry.ty != decl.ty {
                let message = format!("{}: expected {}, got {}", decl.name, decl.ty, entry.ty);
                return Err(Error::Invalid(message));
            }
            weights.push(locate(entry, &files)?);
        }
        Ok(Weights { weights, files, layout_files: Vec::new() })
    }

    /// Maps a layout file; the weights that `table` names have a packing from now on.
    ///
    /// # Errors
    /// The file cannot be mapped, or an entry that is no weight, of another type, of a packing that
    /// does not take it or whose bytes are not those of the packing.
    pub(crate) fn add_packed(&mut self, module: &Module, table: &WeightTable, base: &Path) -> Result<()> {
        let files = table.files.iter().map(|f| map(Path::new(f), base)).collect::<Result<Vec<_>>>()?;
        for entry in &table.entries {
            let wrong = |message: String| Error::Invalid(format!("layouts: {}: {message}", entry.name));
            let at = module.weights.iter().position(|w| w.name == entry.name);
            let at = at.ok_or_else(|| wrong("the module has no such weight".to_string()))?;
            if entry.ty != module.weights[at].ty {
                return Err(wrong(format!("expected {}, got {}", module.weights[at].ty, entry.ty)));
            }
            self.weights[at].packed = Some(locate_packed(entry, &files)?);
        }
        self.layout_files.extend(files);
        Ok(())
    }

    /// How the bytes of [`Weights::packed`] lie.
    pub(crate) fn packing(&self, index: usize) -> Packing {
        self.weights[index].packed.as_ref().map_or(Packing::Stored, |(packing, _)| *packing)
    }

    /// The weight as kernels of its packing read it: the codes of each matrix are the packed bytes,
    /// scales included. As stored where it has no packing.
    pub(crate) fn packed(&self, index: usize) -> WeightView<'_> {
        let Weight { scalar, dims, items, packed } = &self.weights[index];
        let items = packed.as_ref().map_or(items, |(_, items)| items);
        WeightView { scalar: *scalar, dims, items }
    }

    /// The mapped files, in the table's order: path and bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.iter().map(|f| (f.path.as_path(), &f.map[..]))
    }
}

fn map(path: &Path, base: &Path) -> Result<Mapped> {
    let beside = base.join(path);
    let path = if beside.exists() { beside } else { path.to_path_buf() };
    let file = File::open(&path).map_err(Error::io(&path))?;
    // SAFETY: the mapping is read-only. A file that another process shortens while it is mapped ends
    // this process by a signal; nothing can be read out of bounds.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
    // Pages that come from the disk then come in pieces of 2 MiB, and are mapped as such where the file
    // system can. It is a hint: elsewhere nothing changes.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Mapped { path, map })
}

/// Bytes of codes and of scales of one matrix of this type, and the number of matrices.
///
/// # Errors
/// Extents whose product is no size in memory.
pub(crate) fn item_sizes(ty: &TensorType) -> Option<(u64, u64, u64)> {
    let dims = ty.constants()?;
    let (items, rows, width) = match dims[..] {
        [width] => (1, 1, width),
        [rows, width] => (1, rows, width),
        [items, rows, width] => (items, rows, width),
        _ => return None,
    };
    let codes = u64::from(rows).checked_mul(ty.scalar.row_bytes(width as usize) as u64)?;
    let scales = ty.scalar.scale_shape(rows as usize, width as usize);
    let scales = scales.map_or(0, |[r, c]| r as u64 * c as u64);
    Some((u64::from(items), codes, scales))
}

fn locate(entry: &WeightEntry, files: &[Mapped]) -> Result<Weight> {
    let wrong = |message: String| Error::Invalid(format!("{}: {message}", entry.name));
    if let Layout::Repacked(layout) = &entry.layout {
        return Err(wrong(format!("layout: expected as stored, got {layout}")));
    }
    let sizes = item_sizes(&entry.ty).filter(|(items, ..)| *items <= ITEMS_MAX);
    let (items, codes, scales) = sizes.ok_or_else(|| wrong(format!("{} has no size", entry.ty)))?;
    let code_ranges = ranges(entry, Role::Codes, items, codes, files)?;
    let scale_ranges = ranges(entry, Role::Scales, if scales == 0 { 0 } else { items }, scales, files)?;
    let scales_of = |i: usize| scale_ranges.get(i).map_or(&[][..], |r| bytes_of(r, files));
    let items = code_ranges.iter().enumerate().map(|(i, r)| (bytes_of(r, files), scales_of(i))).collect();
    let dims = entry.ty.constants().expect("weights have constant extents");
    let dims = dims.iter().map(|d| *d as usize).collect();
    Ok(Weight { scalar: entry.ty.scalar, dims, items, packed: None })
}

/// The packing of an entry and the bytes of its matrices.
fn locate_packed(entry: &WeightEntry, files: &[Mapped]) -> Result<(Packing, Items)> {
    let wrong = |message: String| Error::Invalid(format!("layouts: {}: {message}", entry.name));
    let name = match &entry.layout {
        Layout::Repacked(name) => name,
        Layout::AsStored => return Err(wrong("expected a packing, got none".to_string())),
    };
    let packing = Packing::parse(name).ok_or_else(|| wrong(format!("{name}: no packing of this build")))?;
    let (items, bytes) = packed_sizes(packing, &entry.ty)
        .filter(|(items, _)| *items <= ITEMS_MAX)
        .ok_or_else(|| wrong(format!("the packing {name} takes no {}", entry.ty)))?;
    let codes = ranges(entry, Role::Codes, items, bytes, files)?;
    ranges(entry, Role::Scales, 0, 0, files)?;
    Ok((packing, codes.iter().map(|r| (bytes_of(r, files), &[][..])).collect()))
}

/// Number of matrices of a weight, and bytes of each in a packing, `None` where it takes no such.
pub(crate) fn packed_sizes(packing: Packing, ty: &TensorType) -> Option<(u64, u64)> {
    let (items, ..) = item_sizes(ty)?;
    let dims = ty.constants()?;
    let [.., rows, width] = dims[..] else { return None };
    let bytes = packing.packed_bytes(ty.scalar, rows as usize, width as usize)?;
    Some((items, bytes as u64))
}

/// The bytes of a range, for as long as the files stay mapped.
fn bytes_of(range: &Range, files: &[Mapped]) -> &'static [u8] {
    let slice = &files[range.0].map[range.1..range.2];
    // SAFETY: the mapping behind the slice is owned by the `Weights` that the slice is put into, which
    // drops its files after its weights and never changes them; moving a `Mmap` does not move its pages.
    unsafe { std::slice::from_raw_parts(slice.as_ptr(), slice.len()) }
}

/// The `items` ranges of `role`, each of `bytes`.
fn ranges(entry: &WeightEntry, role: Role, items: u64, bytes: u64, files: &[Mapped]) -> Result<Vec<Range>> {
    let wrong = |message: String| Error::Invalid(format!("{}: {message}", entry.name));
    let parts: Vec<&Part> = entry.parts.iter().filter(|p| p.role == role).collect();
    let mut all = Vec::new();
    for part in parts {
        let file = files.get(part.file as usize);
        let file =
            file.ok_or_else(|| wrong(format!("file {}: expected one of {}", part.file, files.len())))?;
        if part.bytes != bytes {
            return Err(wrong(format!("{role:?}: expected {bytes} bytes per matrix, got {}", part.bytes)));
        }
        for i in 0..u64::from(part.count).min(items + 1) {
            let start = part.stride.checked_mul(i).and_then(|at| at.checked_add(part.offset));
            let end = start.and_then(|at| at.checked_add(bytes)).filter(|end| *end <= file.map.len() as u64);
            let (Some(start), Some(end)) = (start, end) else {
                let message =
                    format!("{}: matrix {i} lies outside its {} bytes", file.path.display(), file.map.len());
                return Err(wrong(message));
            };
            all.push((part.file as usize, start as usize, end as usize));
        }
    }
    if all.len() as u64 != items {
        return Err(wrong(format!("{role:?}: expected {items} matrices, got {}", all.len())));
    }
    Ok(all)
}

impl WeightSource for Weights {
    fn weight(&self, index: usize) -> WeightView<'_> {
        let weight = &self.weights[index];
        WeightView { scalar: weight.scalar, dims: &weight.dims, items: &weight.items }
    }
}
