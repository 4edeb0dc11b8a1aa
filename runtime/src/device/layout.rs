//! Where weights lie for a device: uploaded into one memory, or in the pages of their files.
use crate::weights::Weights;
use ds4_ir::plan::ALIGN;
use ds4_ir::{Module, Role, WeightSource};
use std::collections::HashMap;

/// Every address that a kernel is given is a multiple of so many bytes.
const ADDRESS_ALIGN: usize = 16;

/// Codes and scales of a matrix.
type Item<'a> = (&'a [u8], &'a [u8]);

/// Pages of the host's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct View {
    pub(super) start: usize,
    pub(super) bytes: usize,
}

/// Where weights lie in the device's memory.
pub(super) struct Layout<'a> {
    /// Offset of each range of the files that is uploaded, by where it lies on the host.
    ranges: HashMap<(usize, usize), u64>,
    /// These ranges in order of their offsets.
    pub(super) order: Vec<(u64, &'a [u8])>,
    pub(super) bytes: u64,
    /// What is used where it lies.
    pub(super) views: Vec<View>,
    /// Which of them has the codes or the scales of a weight.
    view_of: HashMap<(usize, bool), usize>,
}

impl<'a> Layout<'a> {
    /// Gives every range that the module's weights name one place, once. Where the device can read pages of the
    /// host, of `page` bytes, that is where they are: if a weight's matrices begin at multiples of 16 bytes, in one file
    /// and within `most` bytes.
    pub(super) fn new(module: &Module, weights: &'a Weights, page: Option<usize>, most: u64) -> Layout<'a> {
        let (ranges, view_of) = (HashMap::new(), HashMap::new());
        let mut layout = Layout { ranges, order: Vec::new(), bytes: 0, views: Vec::new(), view_of };
        for index in 0..module.weights.len() {
            for role in [Role::Codes, Role::Scales] {
                let items = weights.weight(index).items;
                let view = page.and_then(|page| view(items, role, weights, page));
                match view.filter(|v| v.bytes as u64 <= most) {
                    Some(view) => {
                        layout.view_of.insert((index, role == Role::Codes), layout.views.len());
                        layout.views.push(view);
                    }
                    None => items.iter().for_each(|item| layout.add(of_role(*item, role))),
                }
            }
        }
        layout
    }

    fn add(&mut self, bytes: &'a [u8]) {
        let at = self.bytes;
        if self.ranges.contains_key(&key(bytes)) {
            return;
        }
        self.ranges.insert(key(bytes), at);
        self.order.push((at, bytes));
        self.bytes = (at + bytes.len() as u64).next_multiple_of(ALIGN);
    }

    /// The number of the memory that holds a weight: 0 where it is uploaded, else one more than that of its view.
    pub(super) fn memory(&self, index: usize, role: Role) -> usize {
        self.view_of.get(&(index, role == Role::Codes)).map_or(0, |view| view + 1)
    }

    /// The offset of a matrix of a weight in that memory.
    pub(super) fn at(&self, index: usize, role: Role, item: Item<'_>) -> u64 {
        let bytes = of_role(item, role);
        match self.view_of.get(&(index, role == Role::Codes)) {
            Some(view) => (bytes.as_ptr() as usize - self.views[*view].start) as u64,
            None => self.ranges[&key(bytes)],
        }
    }
}

/// The pages that hold all matrices of a weight; `None` if kernels could not read them there.
fn view(items: &[Item<'_>], role: Role, weights: &Weights, page: usize) -> Option<View> {
    let ranges = || items.iter().map(|item| of_role(*item, role));
    let first = ranges().map(|r| r.as_ptr() as usize).min()?;
    let end = ranges().map(|r| r.as_ptr() as usize + r.len()).max()?;
    let fits = ranges().all(|r| !r.is_empty() && (r.as_ptr() as usize).is_multiple_of(ADDRESS_ALIGN));
    let in_one = weights.files().any(|(_, file)| {
        let start = file.as_ptr() as usize;
        start <= first && end <= start + file.len()
    });
    // A file is mapped from the start of a page to the end of one.
    let start = first / page * page;
    (fits && in_one).then(|| View { start, bytes: end.next_multiple_of(page) - start })
}

fn key(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr() as usize, bytes.len())
}

fn of_role<'a>((codes, scales): Item<'a>, role: Role) -> &'a [u8] {
    if role == Role::Codes { codes } else { scales }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ds4_ir::module::Decl;
    use ds4_ir::{Class, Part, Scalar, TensorType, WeightEntry, WeightTable};

    const PAGE: usize = 4096;

    /// A weight of so many matrices of 1024 numbers, the first from byte `offset` of the file on.
    fn entry(name: &str, offset: u64, count: u32) -> WeightEntry {
        let part = Part { role: Role::Codes, file: 0, offset, bytes: 4096, stride: 4096, count };
        WeightEntry {
            name: name.to_string(),
            ty: TensorType::fixed(Scalar::F32, &[count, 4, 256]),
            layout: ds4_ir::Layout::AsStored,
            parts: vec![part],
        }
    }

    #[test]
    fn weights_stay_where_they_lie_if_kernels_can_read_them_there() {
        let file = std::env::temp_dir().join(format!("ds4-views-{}", std::process::id()));
        std::fs::write(&file, vec![0; 40_000]).unwrap();
        // The second does not begin at a multiple of 16 bytes, the last has the bytes of the first.
        let entries =
            vec![entry("a", 5008, 3), entry("b", 20_008, 1), entry("c", 24_576, 2), entry("d", 5008, 1)];
        let module = Module {
            name: "m".to_string(),
            class: Class::Fast,
            ctx: 8,
            vocab: 8,
            weights: entries.iter().map(|e| Decl { name: e.name.clone(), ty: e.ty.clone() }).collect(),
            states: vec![],
            params: vec![],
            funcs: vec![],
            graphs: vec![],
        };
        let table = WeightTable { files: vec![file.display().to_string()], entries };
        let weights = Weights::open(&module, &table, &std::env::temp_dir()).unwrap();
        std::fs::remove_file(&file).unwrap();
        let place = |layout: &Layout<'_>, index: usize, item: usize| {
            let bytes = weights.weight(index).items[item];
            (layout.memory(index, Role::Codes), layout.at(index, Role::Codes, bytes))
        };

        let uploaded =
            |layout: &Layout<'_>| layout.order.iter().filter(|(_, bytes)| !bytes.is_empty()).count();

        let there = Layout::new(&module, &weights, Some(PAGE), 16 << 10);
        let start = weights.files().next().unwrap().1.as_ptr() as usize;
        let view = |from: usize, to: usize| View { start: start + from, bytes: to - from };
        assert_eq!(there.views, [view(4096, 20_480), view(24_576, 32_768), view(4096, 12_288)]);
        assert_eq!((place(&there, 0, 0), place(&there, 0, 2)), ((1, 912), (1, 912 + 8192)));
        assert_eq!((place(&there, 2, 1), place(&there, 3, 0)), ((2, 4096), (3, 912)));
        assert_eq!((place(&there, 1, 0).0, uploaded(&there)), (0, 1));

        // One that is larger than the device takes in one piece is uploaded by matrices, as all are elsewhere.
        let some = Layout::new(&module, &weights, Some(PAGE), 12 << 10);
        assert_eq!((some.views.len(), uploaded(&some)), (2, 4));
        let none = Layout::new(&module, &weights, None, 1 << 20);
        assert_eq!((none.views.len(), uploaded(&none)), (0, 6));
        assert_eq!(place(&none, 3, 0), place(&none, 0, 0));
    }
}
