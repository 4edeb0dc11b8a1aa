//! Launches that need nothing of each other and are alike become one `launch { }` block.
//!
//! Each launch has a window of levels: the earliest that its operands allow and the latest that its
//! readers do. Those whose windows meet are joined at one level. Everything a
//! launch needs lies on lower levels, so a block never waits for itself.
use crate::rebuild::{before, reorder};
use ds4_ir::{Func, Value};

/// Ops that run side by side, sorted; devices give them blocks of threads of one size.
///
/// Products with a weight, rows made of what such products gave, and rows that go into states. Queries are not
/// among them: where they are a value of their own they are large, and alone they may run while the indexer
/// selects.
const SIDE_BY_SIDE: &[&str] = &[
    "append",
    "compress_append",
    "compress_index_append",
    "compress_index_row",
    "compress_push",
    "compress_row",
    "grouped_matmul",
    "index_query",
    "kv_row",
    "linear",
    "matmul",
    "mlp_up",
    "moe_route",
    "moe_route_hash",
    "norm_linear",
    "out_low",
    "push",
];

/// Groups siblings of a fused function.
pub fn pack(func: &Func) -> Func {
    let launches: Vec<Vec<Value>> = func.launches();
    assert!(launches.iter().all(|l| l.len() == 1), "@{} is packed already", func.name);
    let before = before(func, &launches);
    let mut levels = Levels::new(&before);
    let joins = |i: &usize| {
        let op = func.node(launches[*i][0]).expect("a launch is a node").op.name;
        SIDE_BY_SIDE.binary_search(&op).is_ok()
    };
    let (mut open, alone): (Vec<usize>, Vec<usize>) = (0..launches.len()).partition(joins);
    let mut grouped: Vec<Vec<usize>> = Vec::new();
    while !open.is_empty() {
        let group = levels.first_group(&open);
        open.retain(|i| !group.contains(i));
        levels.pin(&group);
        grouped.push(group);
    }
    grouped.extend(alone.into_iter().map(|i| vec![i]));
    grouped.iter_mut().for_each(|g| g.sort_unstable());
    grouped.sort_by_key(|g| (levels.early[g[0]], g[0]));
    let order: Vec<Vec<Value>> =
        grouped.iter().map(|g| g.iter().map(|i| launches[*i][0]).collect()).collect();
    reorder(func, &order)
}

/// The window of levels of each launch.
struct Levels<'a> {
    before: &'a [Vec<usize>],
    pinned: Vec<Option<usize>>,
    early: Vec<usize>,
    late: Vec<usize>,
}

impl Levels<'_> {
    fn new(before: &[Vec<usize>]) -> Levels<'_> {
        let n = before.len();
        let mut levels = Levels { before, pinned: vec![None; n], early: vec![0; n], late: vec![0; n] };
        levels.update();
        levels
    }

    /// Windows that respect what is pinned. Launches come after what they need, so one sweep each
    /// way is enough.
    fn update(&mut self) {
        let n = self.before.len();
        for i in 0..n {
            let ready = self.before[i].iter().map(|j| self.early[*j] + 1).max().unwrap_or(0);
            assert!(self.pinned[i].is_none_or(|at| at >= ready), "launch {i} is pinned too early");
            self.early[i] = self.pinned[i].unwrap_or(ready);
        }
        let last = self.early.iter().copied().max().unwrap_or(0);
        self.late.fill(last);
        for i in (0..n).rev() {
            self.late[i] = self.pinned[i].unwrap_or(self.late[i]);
            for j in &self.before[i] {
                self.late[*j] = self.late[*j].min(self.late[i] - 1);
            }
        }
    }

    /// The launch that must come first, and all whose windows meet its own.
    fn first_group(&self, open: &[usize]) -> Vec<usize> {
        let mut order = open.to_vec();
        order.sort_by_key(|i| (self.late[*i], self.early[*i], *i));
        let (mut low, mut high) = (0, usize::MAX);
        let mut group = Vec::new();
        for i in order {
            let meets = (low.max(self.early[i]), high.min(self.late[i]));
            if meets.0 <= meets.1 && !self.reaches(&group, i) {
                (low, high) = meets;
                group.push(i);
            }
        }
        group
    }

    /// Whether `i` needs a member of the group or the other way round.
    fn reaches(&self, group: &[usize], i: usize) -> bool {
        group.iter().any(|j| self.needs(i, *j) || self.needs(*j, i))
    }

    fn needs(&self, i: usize, j: usize) -> bool {
        let mut stack = vec![i];
        let mut seen = vec![false; self.before.len()];
        while let Some(k) = stack.pop() {
            for b in &self.before[k] {
                if *b == j {
                    return true;
                }
                if !std::mem::replace(&mut seen[*b], true) {
                    stack.push(*b);
                }
            }
        }
        false
    }

    fn pin(&mut self, group: &[usize]) {
        let level = group.iter().map(|i| self.early[*i]).max().expect("a group has a member");
        group.iter().for_each(|i| self.pinned[*i] = Some(level));
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::SIDE_BY_SIDE;

    #[test]
    fn names_are_sorted_and_are_ops() {
        assert!(SIDE_BY_SIDE.is_sorted());
        for name in SIDE_BY_SIDE {
            assert!(ds4_ir::op(name).is_some(), "`{name}` is no op");
        }
    }
}
