//! What the arguments of a launch are, and how an artifact spells them.
use ds4_ir::Role;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// One buffer of a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// The member of the block of nodes that it belongs to; 0 of what belongs to none.
    pub member: usize,
    /// Which of the member's buffers it is.
    pub binding: Binding,
}

/// A buffer of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The step buffer: `i32` start, tokens, wanted, 0.
    Step,
    /// Operand of that index: a value, a parameter or a state.
    Value(usize),
    /// Operand of that index, a plain weight.
    Weight(usize, Role),
    /// Operand of that index, a weight of rank 3: per matrix a `u64`, its offset from the base.
    Table(usize, Role),
    /// What the offsets of a table count from.
    Base(usize, Role),
    /// Constant of that index.
    Constant(usize),
    /// The result, or the state that the node updates.
    Out,
    /// So many bytes of the node's scratch memory, from an offset.
    Scratch(u64, u64),
}

/// How a binding is spelled: a letter, then its number, then its role.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = |r: &Role| if *r == Role::Codes { 'c' } else { 's' };
        match self {
            Binding::Step => f.write_str("step"),
            Binding::Value(i) => write!(f, "v{i}"),
            Binding::Weight(i, r) => write!(f, "w{i}{}", role(r)),
            Binding::Table(i, r) => write!(f, "t{i}{}", role(r)),
            Binding::Base(i, r) => write!(f, "b{i}{}", role(r)),
            Binding::Constant(i) => write!(f, "k{i}"),
            Binding::Out => f.write_str("out"),
            Binding::Scratch(offset, bytes) => write!(f, "x{offset}+{bytes}"),
        }
    }
}

impl Binding {
    fn parse(text: &str) -> Option<Binding> {
        match text {
            "step" => return Some(Binding::Step),
            "out" => return Some(Binding::Out),
            _ => {}
        }
        let rest = text.get(1..)?;
        let with_role = |text: &str| {
            let codes = text.strip_suffix('c').map(|i| (i, Role::Codes));
            let (i, role) = codes.or_else(|| Some((text.strip_suffix('s')?, Role::Scales)))?;
            Some((i.parse().ok()?, role))
        };
        match text.as_bytes()[0] {
            b'v' => Some(Binding::Value(rest.parse().ok()?)),
            b'k' => Some(Binding::Constant(rest.parse().ok()?)),
            b'w' => with_role(rest).map(|(i, r)| Binding::Weight(i, r)),
            b't' => with_role(rest).map(|(i, r)| Binding::Table(i, r)),
            b'b' => with_role(rest).map(|(i, r)| Binding::Base(i, r)),
            b'x' => {
                let (offset, bytes) = rest.split_once('+')?;
                Some(Binding::Scratch(offset.parse().ok()?, bytes.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// The binding; of another member than the first behind the member's number: `out`, `2.w1c`.
impl Serialize for Buffer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.member {
            0 => serializer.collect_str(&self.binding),
            member => serializer.collect_str(&format_args!("{member}.{}", self.binding)),
        }
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Buffer, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Buffer::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("no buffer: {text}")))
    }
}

impl Buffer {
    fn parse(text: &str) -> Option<Buffer> {
        let (member, binding) = match text.split_once('.') {
            Some((member, binding)) => (member.parse().ok()?, binding),
            None => (0, text),
        };
        Some(Buffer { member, binding: Binding::parse(binding)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_read_back() {
        let own = [
            Binding::Step,
            Binding::Out,
            Binding::Value(3),
            Binding::Weight(12, Role::Codes),
            Binding::Table(1, Role::Scales),
            Binding::Base(1, Role::Codes),
            Binding::Constant(0),
            Binding::Scratch(256, 1024),
        ];
        let mut all: Vec<Buffer> = own.into_iter().map(|binding| Buffer { member: 0, binding }).collect();
        all.push(Buffer { member: 2, binding: Binding::Out });
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(text, r#"["step","out","v3","w12c","t1s","b1c","k0","x256+1024","2.out"]"#);
        let back: Vec<Buffer> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, all);
        for bad in ["", "v", "w1", "x1", "ü1c", "stepp", ".out", "1.", "-1.out", "1.1.out"] {
            assert_eq!(Buffer::parse(bad), None, "{bad}");
        }
    }
}
