//! What a device launches for a `launch { }` block of a planned function.
//!
//! The members of a block need nothing of each other. In short steps, which launches hold back more than
//! bytes do, their first launches run as one, side by side in blocks of threads of their own, then their
//! second ones. In long steps each launch fills a device, and one that shares a text with others would only
//! share their registers too: there the members are launched one after the other.
use crate::{Binding, Launch, Target, launches};
use ds4_ir::cost::{Site, args_of};
use ds4_ir::plan::Maxima;
use ds4_ir::{Arg, Func, Role, Value, Weight};
use std::mem::{Discriminant, discriminant};

/// Steps of up to so many tokens join the launches of a block.
const JOIN_TOKENS: u32 = 8;
/// Most buffers of a launch: what Metal has places for.
const BUFFERS_MAX: usize = 31;

/// One launch on a device: that of one node, or of several side by side.
#[derive(Clone, Debug)]
pub struct Joint {
    /// The launches, at least one. Their blocks of threads follow each other in this order, and have the
    /// same shape.
    pub parts: Vec<Part>,
    /// Every buffer once: the member of the block that it belongs to, and which of its buffers it is.
    pub bindings: Vec<(usize, Binding)>,
}

/// A launch beside others.
#[derive(Clone, Debug)]
pub struct Part {
    /// The launch.
    pub launch: Launch,
    /// The place of each of its bindings in [`Joint::bindings`].
    pub arguments: Vec<usize>,
}

impl Joint {
    /// Threads of a block.
    pub fn block(&self) -> [u32; 3] {
        self.parts[0].launch.block
    }

    /// Blocks: a part's own grid, or the blocks of all parts in a row.
    pub fn grid(&self) -> [u32; 3] {
        match &self.parts[..] {
            [part] => part.launch.grid,
            parts => [parts.iter().map(Part::blocks).sum(), 1, 1],
        }
    }

    /// Everything that the text depends on but the target: see [`Launch::key`].
    pub fn key(&self) -> String {
        if let [part] = &self.parts[..] {
            return part.launch.key();
        }
        let part =
            |p: &Part| format!("{} grid {:?} arguments {:?}", p.launch.key(), p.launch.grid, p.arguments);
        self.parts.iter().map(part).collect::<Vec<_>>().join(" beside ")
    }

    /// Name of the text: its kernels, each once.
    pub fn name(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in self.parts.iter().map(|p| p.launch.text.name()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join("_and_")
    }
}

impl Part {
    /// Blocks of threads.
    pub fn blocks(&self) -> u32 {
        self.launch.grid.iter().product()
    }
}

/// Bytes that the launches of a block need of the scratch memory of a member.
pub fn member_scratch_bytes(joints: &[Joint], member: usize) -> u64 {
    let bindings = joints.iter().flat_map(|joint| &joint.bindings);
    let own = bindings.filter(|(owner, _)| *owner == member);
    own.map(|(_, binding)| binding.scratch_end()).max().unwrap_or(0)
}

/// What runs a launch of a function in a bucket, in order: a node alone, or a block of them.
///
/// # Errors
/// The first member that the target has no kernel for.
pub fn block(func: &Func, members: &[Value], maxima: &Maxima, target: &Target) -> Result<Vec<Joint>, Value> {
    let mut lists = Vec::new();
    for v in members {
        let (args, op) = (args_of(func, *v), func.node(*v).expect("a launch computes a node").op);
        let site = Site { op, args: &args, ty: func.ty(*v) };
        lists.push(launches(&site, maxima, target).ok_or(*v)?);
    }
    let stages = lists.iter().map(Vec::len).max().unwrap_or(0);
    let mut all = Vec::new();
    for stage in 0..stages {
        let mut sets: Vec<Set<'_>> = Vec::new();
        for (member, launch) in lists.iter().enumerate().filter_map(|(m, l)| Some((m, l.get(stage)?))) {
            let join = maxima.tokens <= JOIN_TOKENS;
            match sets.iter_mut().find(|set| join && set.takes(member, launch)) {
                Some(set) => set.launches.push((member, launch)),
                None => sets.push(Set { func, members, launches: vec![(member, launch)] }),
            }
        }
        all.extend(sets.iter().map(Set::joint));
    }
    Ok(all)
}

/// Launches that run side by side, each with its member of the block.
#[derive(Clone)]
struct Set<'a> {
    func: &'a Func,
    members: &'a [Value],
    launches: Vec<(usize, &'a Launch)>,
}

/// What tells the buffers of a block's members apart.
#[derive(PartialEq)]
enum Buffer<'a> {
    /// The same for every member.
    Common(&'a Binding),
    /// An operand that is a value.
    Value(Value),
    /// Codes or scales of an operand that is a weight, by the kind of the binding.
    Weight(Discriminant<Binding>, Weight, Role),
    /// Of one member only.
    Own(usize, &'a Binding),
}

impl<'a> Set<'a> {
    /// Whether one more launch can run beside these.
    fn takes(&self, member: usize, launch: &'a Launch) -> bool {
        let mut more = self.clone();
        more.launches.push((member, launch));
        launch.block == self.launches[0].1.block && more.buffers().1.len() <= BUFFERS_MAX
    }

    fn joint(&self) -> Joint {
        let part = |launch: &Launch, arguments| Part { launch: launch.clone(), arguments };
        if let [(member, launch)] = self.launches[..] {
            // Alone it has its bindings as its text has them, the same one twice if it says so.
            let bindings: Vec<_> = launch.bindings.iter().map(|b| (member, b.clone())).collect();
            return Joint { parts: vec![part(launch, (0..bindings.len()).collect())], bindings };
        }
        let (arguments, bindings) = self.buffers();
        let parts = self.launches.iter().zip(arguments).map(|((_, l), a)| part(l, a)).collect();
        Joint { parts, bindings }
    }

    /// For each launch the place of its bindings in a list that has every buffer once, and that list.
    fn buffers(&self) -> (Vec<Vec<usize>>, Vec<(usize, Binding)>) {
        let mut distinct: Vec<(usize, &Binding)> = Vec::new();
        let mut arguments = Vec::new();
        for (member, launch) in &self.launches {
            let mut own = Vec::new();
            for binding in &launch.bindings {
                let buffer = self.buffer(*member, binding);
                let known = distinct.iter().position(|(m, b)| self.buffer(*m, b) == buffer);
                own.push(known.unwrap_or(distinct.len()));
                if known.is_none() {
                    distinct.push((*member, binding));
                }
            }
            arguments.push(own);
        }
        (arguments, distinct.into_iter().map(|(m, b)| (m, b.clone())).collect())
    }

    fn buffer<'b>(&self, member: usize, binding: &'b Binding) -> Buffer<'b> {
        let args = &self.func.node(self.members[member]).expect("a node").args;
        match binding {
            Binding::Step | Binding::Constant(_) => Buffer::Common(binding),
            Binding::Out | Binding::Scratch { .. } => Buffer::Own(member, binding),
            Binding::Value(i) => match args[*i] {
                Arg::Value(v) => Buffer::Value(self.func.storage_of(v)),
                _ => unreachable!("operand {i} is a value"),
            },
            Binding::Weight(i, role) | Binding::Table(i, role) | Binding::Base(i, role) => match args[*i] {
                Arg::Weight(w) => Buffer::Weight(discriminant(binding), w, *role),
                _ => unreachable!("operand {i} is a weight"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNC: &str =
        "func @f(%x: f32[t, 96], %ring: state ring/8 f32[40], %row: f32[t, 40], %pos: i32[t], \
        @a: q8_0[40, 96], @b: f32[24, 96]) {
  launch {
    %p = linear %x, @a, fmt=q8_0 : f32[t, 40]
    %q = matmul %x, @b : f32[t, 24]
    %ring1 = push %ring, %row, %pos : state ring/8 f32[40]
  }
  %r = matmul %x, @b : f32[t, 24]
  return %p, %q, %r, %ring1
}
";

    fn blocks(tokens: u32) -> Vec<Vec<Joint>> {
        let func = ds4_ir::parse_funcs(FUNC).unwrap().remove(0);
        let maxima = Maxima { tokens, wanted: tokens, ctx: 64 };
        let target = Target::parse("metal").unwrap();
        func.launches().iter().map(|l| block(&func, l, &maxima, &target).unwrap()).collect()
    }

    #[test]
    fn members_of_a_block_are_one_launch_in_short_steps() {
        let [joint, alone] = &blocks(JOIN_TOKENS)[..] else { panic!("two launches") };
        let [joint] = &joint[..] else { panic!("one launch: {joint:?}") };
        assert_eq!((joint.parts.len(), joint.name().as_str()), (3, "matmul_and_push"));
        assert_eq!(joint.grid(), [joint.parts.iter().map(Part::blocks).sum(), 1, 1]);
        // The step buffer and x are there once; a weight, or a state, belongs to its member.
        let count = |binding: &Binding| joint.bindings.iter().filter(|(_, b)| b == binding).count();
        assert_eq!((count(&Binding::Step), count(&Binding::Value(0))), (1, 1));
        assert_eq!((count(&Binding::Weight(1, Role::Codes)), count(&Binding::Out)), (2, 3));
        for part in &joint.parts {
            assert_eq!(part.arguments.len(), part.launch.bindings.len());
            for (at, binding) in part.arguments.iter().zip(&part.launch.bindings) {
                assert_eq!(&joint.bindings[*at].1, binding);
            }
        }
        assert_eq!(alone[0].grid(), alone[0].parts[0].launch.grid);
        assert_eq!(alone[0].bindings.len(), alone[0].parts[0].launch.bindings.len());
    }

    #[test]
    fn members_of_a_block_follow_each_other_in_long_steps() {
        let [three, one] = &blocks(JOIN_TOKENS + 1)[..] else { panic!("two launches") };
        assert_eq!((three.len(), one.len()), (3, 1));
        assert_eq!(three.iter().map(|j| j.bindings[0].0).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
