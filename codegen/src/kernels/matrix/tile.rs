//! Inputs and matrices on their way to the tiles in shared memory.
use super::range::{all_heads, both, bound, heads, magnitude};
use super::{Element, Matrix, PITCH, TILE_GROUPS};
use crate::kernels::common::{SECTOR, Stretch, quads, singles};
use crate::kernels::formats::{Place, Staged, decode};
use cubecl::prelude::*;

/// Shared memory of a block.
#[derive(CubeType)]
pub(super) struct Held {
    /// The tile of the inputs and behind it that of the matrices; at the end the sums of each subgroup.
    pub(super) room: Shared<[Vector<u32, Const<4>>]>,
    /// Bytes of a chunk of the matrices.
    window: Shared<[Vector<u32, Const<4>>]>,
    /// A number per subgroup.
    pub(super) partial: Shared<[u32]>,
}

#[cube]
impl Held {
    /// Room for a product.
    pub(super) fn new(#[comptime] m: Matrix) -> Held {
        Held {
            // Fragments begin at multiples of 32 bytes.
            room: Shared::<[Vector<u32, Const<4>>]>::new_aligned_slice(comptime!(m.room() as usize), 32usize),
            window: Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(m.window() as usize)),
            partial: Shared::<[u32]>::new_slice(comptime!(m.subgroups() as usize)),
        }
    }
}

/// Rows of a matrix: where they lie, from which on, and where they end.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Span {
    /// First byte of the matrix's codes and of its scales in their buffers.
    pub(super) codes: usize,
    pub(super) scales: usize,
    /// First row of the block, and the row behind the last there is.
    pub(super) row: usize,
    pub(super) end: usize,
}

/// Rows of the tile of inputs that a thread stages.
pub(super) fn turns(m: Matrix) -> usize {
    (m.inputs * TILE_GROUPS / m.threads()) as usize
}

/// The row of the tile of inputs that this thread stages in a turn.
#[cube]
pub(super) fn staged_row(#[comptime] turn: usize, #[comptime] m: Matrix) -> usize {
    (UNIT_POS / TILE_GROUPS) as usize + comptime!(turn * (m.threads() / TILE_GROUPS) as usize)
}

/// Tile `tile` of the inputs into shared memory. `from[turn]` is 0 where the thread's row is no input, else one
/// more than the number of the input where inputs lie.
#[cube]
pub(super) fn stage_inputs(
    inputs: &[u32],
    from: &Array<usize>,
    tile: usize,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let of_row = comptime!((m.input_bytes() / 16) as usize);
    let group = (UNIT_POS % TILE_GROUPS) as usize;
    #[unroll]
    for turn in 0..comptime!(turns(m)) {
        let to = staged_row(turn, m) * comptime!(PITCH as usize) + group;
        // Behind the last column of a whole input lies the next one.
        let column = (tile * comptime!(TILE_GROUPS as usize) + group) * comptime!(4 * m.per_word() as usize);
        let there =
            from[turn] > 0 && (comptime!(!m.in_place()) || column < comptime!(m.weight.width as usize));
        if comptime!(m.in_place() && m.pieces() > 1) {
            let at = (from[turn] - 1) * of_row + column / 4;
            stage_pieces(inputs, there, at, to, held, m);
        } else {
            #[unroll]
            for piece in 0..comptime!(m.pieces() as usize) {
                let tile = comptime!(piece * m.tiles() as usize) + tile;
                let at = (from[turn] - 1) * of_row + tile * comptime!(TILE_GROUPS as usize) + group;
                let to = to + comptime!(piece * (m.inputs * PITCH) as usize);
                held.room[to] = group_or_zeros(inputs, there, at);
            }
        }
    }
}

/// Group `at` of the inputs, or zeros.
#[cube]
fn group_or_zeros(inputs: &[u32], there: bool, at: usize) -> Vector<u32, Const<4>> {
    // As in [`fill_part`].
    let mut words = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        words[i] = 0u32;
    }
    if there {
        put_words(quads(inputs)[at], &mut words);
    }
    group_of_words(&words)
}

/// Eight numbers from group `at` of the inputs on, or zeros, into group `to` of each piece's rows.
///
/// Without its lower half an f32 is a bfloat16, and what is left of it is a number of 16 bits, of which the same
/// holds: the pieces' sum is exact.
#[cube]
fn stage_pieces(inputs: &[u32], there: bool, at: usize, to: usize, held: &mut Held, #[comptime] m: Matrix) {
    let mut left = Array::<f32>::new(8usize);
    #[unroll]
    for i in 0..8usize {
        left[i] = 0.0f32;
    }
    if there {
        #[unroll]
        for g in 0..2usize {
            let group = quads(inputs)[at + g];
            #[unroll]
            for i in 0..4usize {
                left[comptime!(4 * g + i)] = f32::reinterpret(group.extract(i));
            }
        }
    }
    #[unroll]
    for piece in 0..comptime!(m.pieces() as usize) {
        let mut group = Vector::<u32, Const<4>>::new(0u32);
        #[unroll]
        for i in 0..4usize {
            let low = u32::reinterpret(left[comptime!(2 * i)]) & 0xffff_0000u32;
            let high = u32::reinterpret(left[comptime!(2 * i + 1)]) & 0xffff_0000u32;
            left[comptime!(2 * i)] -= f32::reinterpret(low);
            left[comptime!(2 * i + 1)] -= f32::reinterpret(high);
            group.insert(i, (low >> 16u32) | high);
        }
        held.room[to + comptime!(piece * (m.inputs * PITCH) as usize)] = group;
    }
}

/// Brings what is staged of the chunk that begins with tile `tile` to the window, from row `to` of it on.
///
/// A chunk is loaded up to the end of its last sector, and the next one takes that sector over from where it waits.
/// All threads of the block call it between barriers.
#[cube]
pub(super) fn fill(
    codes: &[u32],
    scales: &[u32],
    span: &Span,
    tile: usize,
    #[comptime] to: u32,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let w = comptime!(m.weight);
    let (pitch, most) = comptime!((m.window_pitch() as usize, w.staged_bytes(m.chunk) as usize));
    let done = tile / comptime!((m.chunk / m.columns()) as usize) * most;
    let team = comptime!(team(m));
    let rows = comptime!(m.threads() as usize / team);
    #[unroll]
    for pass in 0..comptime!((m.block_rows() as usize).div_ceil(rows)) {
        let row = UNIT_POS as usize / team + comptime!(pass * rows);
        if comptime!(m.chunk < w.width) {
            fill_part(codes, scales, span, row, tile, done, to, held, m);
        } else if row < comptime!(m.block_rows() as usize) && span.row + row < span.end {
            let length = clamp_max(comptime!(w.staged_bytes(w.width) as usize) - done, most);
            let stretch = Stretch::new(first_byte(span, span.row + row, tile, m), length);
            #[unroll]
            for turn in 0..comptime!(pitch / team) {
                let place = UNIT_POS as usize % team + comptime!(turn * team);
                let at = stretch.sector + place;
                if stretch.holds(at) {
                    let group = staged_group(codes, scales, at, m);
                    held.window[(row + comptime!(to as usize)) * pitch + place] = group;
                }
            }
        }
    }
}

/// The bytes of a chunk of row `row` of the block, where `done` of that row came before.
#[cube]
fn fill_part(
    codes: &[u32],
    scales: &[u32],
    span: &Span,
    row: usize,
    tile: usize,
    done: usize,
    #[comptime] to: u32,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let (pitch, team, size) = comptime!((m.window_pitch() as usize, team(m), SECTOR as usize));
    let most = comptime!(m.weight.staged_bytes(m.chunk) as usize);
    let left = comptime!(m.weight.staged_bytes(m.weight.width) as usize) - done;
    let there = row < comptime!(m.block_rows() as usize) && span.row + row < span.end;
    let first = first_byte(span, span.row + row, tile, m);
    let stretch = Stretch::new(first, clamp_max(left, most)).up_to_sector(first + left);
    let lane = UNIT_POS as usize % team;
    let waiting = (row + comptime!(to as usize)) * pitch;
    // Single words stay in registers, where a group would not.
    let mut words = Array::<u32>::new(4usize);
    let kept = done > 0 && first % size > 0 && lane < comptime!(size / 16);
    if there && kept {
        let before = Stretch::new(first - most, most).sector;
        put_words(held.window[waiting + stretch.sector - before + lane], &mut words);
    }
    // The team is of one subgroup, and nobody else has to do with its row.
    sync_plane();
    if there {
        #[unroll]
        for turn in 0..comptime!(pitch / team) {
            let place = lane + comptime!(turn * team);
            let at = stretch.sector + place;
            if stretch.holds(at) {
                if comptime!(turn > 0) {
                    held.window[waiting + place] = staged_group(codes, scales, at, m);
                } else {
                    if !kept {
                        put_words(staged_group(codes, scales, at, m), &mut words);
                    }
                    held.window[waiting + place] = group_of_words(&words);
                }
            }
        }
    }
}

/// Group `at` of what is staged of a matrix.
#[cube]
fn staged_group(codes: &[u32], scales: &[u32], at: usize, #[comptime] m: Matrix) -> Vector<u32, Const<4>> {
    if comptime!(m.weight.staged() == Staged::Codes) { quads(codes)[at] } else { quads(scales)[at] }
}

#[cube]
fn put_words(group: Vector<u32, Const<4>>, words: &mut Array<u32>) {
    #[unroll]
    for i in 0..4usize {
        words[i] = group.extract(i);
    }
}

#[cube]
fn group_of_words(words: &Array<u32>) -> Vector<u32, Const<4>> {
    let mut group = Vector::<u32, Const<4>>::new(0u32);
    #[unroll]
    for i in 0..4usize {
        group.insert(i, words[i]);
    }
    group
}

/// Threads that bring a row's bytes to the window together: such that none is idle.
fn team(m: Matrix) -> usize {
    1 << m.window_pitch().trailing_zeros().min(5)
}

/// The largest bound of a magnitude in the chunk that begins with tile `tile`, which is in the window from row `to`
/// on, as bits.
#[cube]
pub(super) fn bounds(
    span: &Span,
    tile: usize,
    #[comptime] to: u32,
    held: &Held,
    #[comptime] m: Matrix,
) -> u32 {
    let window = singles(held.window.as_slice());
    let (heads, all) = comptime!((heads(m) as usize, all_heads(m) as usize));
    let done = tile / comptime!((m.chunk / m.columns()) as usize) * heads;
    let mut top = 0u32;
    for i in range_stepped(
        UNIT_POS as usize,
        comptime!(m.block_rows() as usize * heads),
        comptime!(m.threads() as usize),
    ) {
        let (row, head) = (i / heads, i % heads);
        if span.row + row < span.end && done + head < all {
            let first = waiting(span, row, tile, to, m);
            top = max(top, magnitude(bound(window, first, head, m)));
        }
    }
    top
}

/// The byte of the window where what is staged of a row of the block begins.
#[cube]
fn waiting(span: &Span, row: usize, tile: usize, #[comptime] to: u32, #[comptime] m: Matrix) -> usize {
    let pitch = comptime!((16 * m.window_pitch()) as usize);
    let first = first_byte(span, span.row + row, tile, m);
    (row + comptime!(to as usize)) * pitch + first % comptime!(SECTOR as usize)
}

/// Where the bytes that are staged of a row and of the chunk that holds tile `tile` begin in their buffer.
#[cube]
fn first_byte(span: &Span, row: usize, tile: usize, #[comptime] m: Matrix) -> usize {
    let w = comptime!(m.weight);
    let chunk = tile / comptime!((m.chunk / m.columns()) as usize);
    let done = chunk * comptime!(w.staged_bytes(m.chunk) as usize);
    if comptime!(w.staged() == Staged::Codes) {
        span.codes + row * comptime!(w.row_bytes() as usize) + done
    } else {
        let scale_row = row / comptime!(w.rows_per_scale_row() as usize);
        span.scales + scale_row * comptime!(w.scale_row_bytes() as usize) + done
    }
}

/// Tile `tile` of a matrix, times `factor`, into shared memory as elements, from row `to` of the tile on. Rows and
/// columns that there are not are zero.
#[cube]
pub(super) fn decode_tile(
    codes: &[u32],
    table: &[u32],
    span: &Span,
    tile: usize,
    factor: f32,
    #[comptime] to: u32,
    held: &mut Held,
    #[comptime] m: Matrix,
) {
    let w = comptime!(m.weight);
    let size = comptime!(w.unit() as usize);
    let per_row = comptime!(m.columns() as usize / size);
    for work in range_stepped(
        UNIT_POS as usize,
        comptime!(m.block_rows() as usize * per_row),
        comptime!(m.threads() as usize),
    ) {
        let (row, u) = (work / per_row, work % per_row);
        let unit = tile * per_row + u;
        let there = span.row + row < span.end && unit < comptime!(w.units() as usize);
        let mut values = Array::<f32>::new(size);
        if there {
            let whole = span.codes + (span.row + row) * comptime!(w.row_bytes() as usize);
            let in_chunk = unit % comptime!((m.chunk / w.unit()) as usize);
            if comptime!(w.staged() == Staged::Nothing) {
                let place = Place { codes: whole, scales: whole };
                decode(codes, codes, table, &place, unit, &mut values, w);
            } else {
                let waiting = waiting(span, row, tile, to, m);
                let window = singles(held.window.as_slice());
                if comptime!(w.staged() == Staged::Codes) {
                    let place = Place { codes: waiting, scales: waiting };
                    decode(window, window, table, &place, in_chunk, &mut values, w);
                } else {
                    let chunk = tile / comptime!((m.chunk / m.columns()) as usize);
                    let done = chunk * comptime!(w.code_bytes(m.chunk) as usize);
                    let place = Place { codes: whole + done, scales: waiting };
                    decode(codes, window, table, &place, in_chunk, &mut values, w);
                }
            }
        }
        #[unroll]
        for i in 0..size {
            let mut value = select(there, values[i], 0.0f32);
            if comptime!(m.scales_matrix()) {
                value *= factor;
            }
            values[i] = value;
        }
        put(&values, row + comptime!((m.input_rows() + to) as usize), u, held, m);
    }
}

/// Unit `u` of a row of a tile.
#[cube]
fn put(values: &Array<f32>, row: usize, u: usize, held: &mut Held, #[comptime] m: Matrix) {
    let each = comptime!(4 * m.per_word() as usize);
    let groups = comptime!(m.weight.unit() as usize / each);
    #[unroll]
    for g in 0..groups {
        let mut group = Vector::<u32, Const<4>>::new(0u32);
        #[unroll]
        for i in 0..4usize {
            if comptime!(m.element == Element::F32) {
                group.insert(i, u32::reinterpret(values[comptime!(each * g + i)]));
            } else {
                let at = comptime!(each * g + 2 * i);
                group.insert(i, both(values[at], values[comptime!(at + 1)], m.element));
            }
        }
        held.room[row * comptime!(PITCH as usize) + u * groups + g] = group;
    }
}
