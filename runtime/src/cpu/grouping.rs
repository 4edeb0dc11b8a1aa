//! Routes by expert: which columns each expert gets, so that its weights are decoded once for them.
use super::frame::SharedFrame;
use super::input::{Columns, Layout};
use super::product::Column;
use ds4_ir::view::Route;
use std::cmp::Reverse;
use std::ops::Range;

/// The routes of a launch, grouped in scratch: experts with the most routes first, the routes of each
/// in their order.
pub(super) struct Grouping {
    experts: usize,
    columns: Columns,
    /// Number of experts in use, then for each its index and the end of its routes, then how many
    /// routes each expert of the table has or where its next one goes.
    heads: usize,
    /// Index of the route of each column, and the place of each route's column.
    routes: usize,
    places: usize,
    routes_max: usize,
}

/// The routes of one expert.
pub(super) struct Group<'a> {
    /// Index into the table of experts.
    pub(super) expert: usize,
    /// Input rows; results are numbered from 0.
    pub(super) columns: &'a [Column],
    /// Index of the route of each column.
    pub(super) routes: &'a [u32],
}

impl Grouping {
    /// A place for up to `routes_max` routes to `experts` experts.
    pub(super) fn new(experts: usize, routes_max: usize, scratch: &mut Layout) -> Grouping {
        let columns = Columns::new(routes_max, scratch);
        let heads = scratch.take((1 + 3 * experts) * 4);
        let [routes, places] = [(); 2].map(|()| scratch.take(routes_max * 4));
        Grouping { experts, columns, heads, routes, places, routes_max }
    }

    /// Groups `routes`; `input(i)` is the input row of route i.
    ///
    /// # Safety
    /// The task that calls it is the only one of its phase that touches the grouping.
    pub(super) unsafe fn fill(&self, routes: &[Route<f32>], input: impl Fn(u32) -> u32, f: &SharedFrame<'_>) {
        assert!(routes.len() <= self.routes_max, "{} routes of {}", routes.len(), self.routes_max);
        // SAFETY: as the caller says.
        let heads = unsafe { f.scratch.slice_mut::<u32>(self.heads, 1 + 3 * self.experts) };
        // SAFETY: as the caller says.
        let ids = unsafe { f.scratch.slice_mut::<u32>(self.routes, routes.len()) };
        // SAFETY: as the caller says.
        let places = unsafe { f.scratch.slice_mut::<u32>(self.places, routes.len()) };
        // SAFETY: as the caller says.
        let columns = unsafe { self.columns.fill(0..routes.len(), f) };
        let (count, rest) = heads.split_first_mut().expect("a head");
        let (order, next) = rest.split_at_mut(2 * self.experts);
        next.fill(0);
        routes.iter().for_each(|r| next[r.expert as usize] += 1);
        let (order, _) = order.as_chunks_mut::<2>();
        *count = 0;
        for (expert, n) in (0..).zip(&*next).filter(|(_, n)| **n > 0) {
            order[*count as usize] = [expert, *n];
            *count += 1;
        }
        let order = &mut order[..*count as usize];
        order.sort_unstable_by_key(|[expert, n]| (Reverse(*n), *expert));
        let mut end = 0;
        for [expert, n] in order {
            next[*expert as usize] = end;
            end += *n;
            *n = end;
        }
        for (i, route) in (0..).zip(routes) {
            let at = &mut next[route.expert as usize];
            (ids[*at as usize], places[i as usize]) = (i, *at);
            columns[*at as usize] = Column { input: input(i), result: 0 };
            *at += 1;
        }
        let ends = heads[1..].as_chunks::<2>().0.iter().take(heads[0] as usize).map(|[_, end]| *end as usize);
        ends.fold(0, |from, to| {
            (0..).zip(&mut columns[from..to]).for_each(|(i, column)| column.result = i);
            to
        });
    }

    fn heads<'a>(&self, f: &SharedFrame<'a>) -> &'a [[u32; 2]] {
        // SAFETY: written in an earlier phase, and not again.
        let heads = unsafe { f.scratch.slice::<u32>(self.heads, 1 + 2 * self.experts) };
        &heads[1..].as_chunks::<2>().0[..heads[0] as usize]
    }

    /// Number of experts that have routes.
    pub(super) fn len(&self, f: &SharedFrame<'_>) -> usize {
        self.heads(f).len()
    }

    /// The group of that number, the largest first.
    pub(super) fn get<'a>(&self, i: usize, f: &SharedFrame<'a>) -> Group<'a> {
        let heads = self.heads(f);
        let from = if i == 0 { 0 } else { heads[i - 1][1] as usize };
        let own: Range<usize> = from..heads[i][1] as usize;
        // SAFETY: written in an earlier phase, and not again.
        let routes = unsafe { f.scratch.slice::<u32>(self.routes + 4 * own.start, own.len()) };
        Group { expert: heads[i][0] as usize, columns: self.columns.get(own, f), routes }
    }

    /// For each of `n` routes the place of its column among those of all groups.
    pub(super) fn places<'a>(&self, n: usize, f: &SharedFrame<'a>) -> &'a [u32] {
        assert!(n <= self.routes_max, "{n} routes of {}", self.routes_max);
        // SAFETY: written in an earlier phase, and not again.
        unsafe { f.scratch.slice(self.places, n) }
    }
}
