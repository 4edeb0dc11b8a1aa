//! Softmax attention with sinks; keys are the values (spec 2.4).
//!
//! ```text
//! swa_attend  (unrope (attend_window ?q ?ring ?row ?sinks ?pos) ?table)
//! csa_attend  (unrope (attend_selected ?q ?ring ?row (gather_rows ?entries ?idx) ?idx ?sinks ?pos) ?table)
//! hca_attend  (unrope (attend_entries ?q ?ring ?row ?entries ?sinks ?pos) ?table)
//! …_query_attend    the same with ?q = (rope (head_norm (split ?x ?parts) ?eps) ?table)
//! ```
//!
//! A subgroup is a head of a token and holds its query and its result in registers, where it norms and
//! rotates the one and rotates the other back. The heads of a
//! block share a tile of keys in shared memory, decoded from where they lie; nothing is gathered.
//! Steps of few tokens cut the keys into parts, one block each, whose softmaxes a second launch joins.
#[cfg(feature = "gpu")]
mod keys;
#[cfg(feature = "gpu")]
mod text;

pub(crate) mod ops;

use super::common::Number;
use super::push::Slots;
use crate::{Binding, Launch, Target, Text};
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use ds4_ir::{Role, Scalar};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {crate::emit, cubecl::prelude::*};

/// Steps of up to so many tokens cut their keys into parts: their heads alone do not fill a device.
const SPLIT_TOKENS: u32 = 8;
/// Keys of a part, unless there would be too many parts.
const PART_KEYS: u32 = 128;
/// Most parts: what the joining launch has to read.
const PARTS_MAX: u32 = 64;
/// Heads of a block.
const HEADS: u32 = 8;
/// Bytes of a tile of keys.
const TILE_BYTES: u32 = 16 << 10;

/// The keys behind the window's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum More {
    /// None.
    None,
    /// Entries that are listed per token, so many places.
    Selected(u32),
    /// All entries, of so many tokens each.
    Entries(u32),
}

/// Attention as its texts are specialised on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Attend {
    heads: u32,
    width: u32,
    /// Element type of the keys.
    keys: Scalar,
    /// Keys of a window.
    span: u32,
    /// Rows of the ring.
    capacity: u32,
    more: More,
    /// Rotary channels.
    dims: u32,
    sinks: Number,
    /// Bits of the epsilon of the queries' norm, if they come as they are and are normed and rotated here.
    query: Option<u32>,
    /// Most parts that the keys of a token are cut into; 1: results are written at once.
    parts: u32,
    lanes: u32,
}

impl Attend {
    /// Channels that a lane holds.
    #[cfg(feature = "gpu")]
    fn each(self) -> usize {
        self.width.div_ceil(self.lanes) as usize
    }

    /// Keys of a tile.
    #[cfg(feature = "gpu")]
    fn tile(self) -> usize {
        ((TILE_BYTES / (4 * self.width)) as usize).clamp(1, 8)
    }

    /// Elements of a part's softmax: the largest score, the sum, and the sums of channels.
    fn part_len(self) -> u32 {
        self.width + 2
    }
}

/// The keys of a token, cut.
#[derive(Debug)]
struct Partial(Attend);

/// Their softmaxes, joined.
#[derive(Debug)]
struct Join(Attend);

/// Where an op has its operands behind the queries, which come first.
struct Place {
    /// The ring; the step's own rows follow it.
    ring: usize,
    entries: Option<usize>,
    idx: Option<usize>,
    sinks: usize,
    table: usize,
    /// The epsilon of the queries' norm.
    eps: Option<usize>,
}

fn launches(site: &Site<'_>, maxima: &Maxima, target: &Target, at: &Place) -> Option<Vec<Launch>> {
    let (out, ring) = (site.ty.tensor()?, site.state(at.ring));
    let (heads, width) = (out.dims[1].constant()?, out.dims[2].constant()?);
    let dims = site.value(at.table).dims[1].constant()?;
    let more = match (at.entries, at.idx) {
        (Some(_), Some(idx)) => More::Selected(site.value(idx).dims[1].constant()?),
        (Some(entries), None) => More::Entries(site.state(entries).kind.span()),
        _ => More::None,
    };
    let is_readable = match ring.scalar {
        Scalar::F32 => true,
        // Codes are read in words of four, rotary channels in words of two.
        Scalar::Kv8 { rope } => (width - u32::from(rope)) % 4 == 0 && rope % 2 == 0,
        _ => false,
    };
    if !is_readable || width > TILE_BYTES / 4 || dims % 2 != 0 || (width - dims) % 2 != 0 {
        return None;
    }
    let Slots::Cyclic(capacity) = Slots::of(ring.kind, maxima) else { return None };
    let keys = u64::from(ring.kind.span())
        + match more {
            More::None => 0,
            More::Selected(k) => u64::from(k),
            More::Entries(ratio) => u64::from(maxima.ctx / ratio),
        };
    let split = maxima.tokens <= SPLIT_TOKENS;
    let parts = if split { keys.div_ceil(PART_KEYS.into()).min(PARTS_MAX.into()) as u32 } else { 1 };
    let a = Attend {
        heads,
        width,
        keys: ring.scalar,
        span: ring.kind.span(),
        capacity,
        more,
        dims,
        sinks: Number::of(site.weight(at.sinks).scalar)?,
        query: at.eps.map(|i| (site.real(i) as f32).to_bits()),
        parts,
        lanes: target.subgroup,
    };
    let scratch_bytes = u64::from(maxima.tokens * parts * heads) * u64::from(a.part_len()) * 4;
    let scratch = Binding::Scratch { offset: 0, bytes: scratch_bytes };
    let partial = Launch {
        block: [HEADS.min(heads) * a.lanes, 1, 1],
        grid: [maxima.tokens, heads.div_ceil(HEADS.min(heads)), parts],
        bindings: vec![
            Binding::Step,
            Binding::Value(0),
            Binding::Value(at.ring),
            Binding::Value(at.ring + 1),
            at.entries.map_or(Binding::Step, Binding::Value),
            at.idx.map_or(Binding::Step, Binding::Value),
            Binding::Weight(at.sinks, Role::Codes),
            Binding::Value(at.table),
            if parts == 1 { Binding::Out } else { scratch.clone() },
        ],
        text: Arc::new(Partial(a)),
    };
    let mut all = vec![partial];
    if parts > 1 {
        let sinks = Binding::Weight(at.sinks, Role::Codes);
        all.push(Launch {
            block: [HEADS.min(heads) * a.lanes, 1, 1],
            grid: [maxima.tokens, heads.div_ceil(HEADS.min(heads)), 1],
            bindings: vec![Binding::Step, scratch, sinks, Binding::Value(at.table), Binding::Out],
            text: Arc::new(Join(a)),
        });
    }
    Some(all)
}

impl Text for Partial {
    fn name(&self) -> &'static str {
        if self.0.parts == 1 { "attend" } else { "attend_part" }
    }

    fn threads_min(&self) -> Option<u32> {
        match self.0.keys {
            Scalar::F32 => Some(512),
            _ => (self.0.parts > 1).then_some(768),
        }
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let new = text::attend_keys::AttendKeys::new;
        CubeKernel::define(&new(set, dev, lang, b0, b1, b2, b3, b4, b5, b6, b7, b8, self.0))
    }
}

impl Text for Join {
    fn name(&self) -> &'static str {
        "attend_join"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4] = emit::buffers();
        let (set, dev, lang) = at.parts();
        CubeKernel::define(&text::join_parts::JoinParts::new(set, dev, lang, b0, b1, b2, b3, b4, self.0))
    }
}
