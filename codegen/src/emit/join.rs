//! One text of several: each keeps its body, as a branch for its own blocks of threads.
//!
//! A part's blocks follow those of the part before it along one axis; its body sees the indices that it would
//! have alone. Buffers are parameters of the whole, under the names that a part knows them by inside it.
//! Shared memory is one piece, as large as the largest part needs.
use super::KernelText;
use super::canonical::{attribute, entry_parenthesis, marker, matching, split};
use crate::{Api, Joint, Part};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The text of all parts; `texts` are theirs, in order.
///
/// # Errors
/// What of a part's text is not as it is known here.
pub(super) fn joined(joint: &Joint, texts: &[KernelText], api: Api) -> Result<KernelText, String> {
    let entry = joint.name();
    let mut items: Vec<&str> = Vec::new();
    let mut whole = Whole::new(api);
    let mut start = 0;
    for (part, text) in joint.parts.iter().zip(texts) {
        let pieces = Pieces::of(&text.source)?;
        for item in pieces.items()? {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        let is_last = start + part.blocks() == joint.grid()[0];
        whole.add(part, &pieces, start, is_last)?;
        start += part.blocks();
    }
    let head: String = items.iter().map(|item| format!("{item}\n")).collect();
    let Whole { qualifiers, parameters, builtins, shared_bytes, branches, .. } = whole;
    let parameters: Vec<String> = parameters.into_values().chain(builtins.into_values()).collect();
    let shared = match api {
        _ if shared_bytes.is_none() => String::new(),
        Api::Metal => format!("alignas(16) threadgroup char shared_memory[{}];\n", shared_bytes.unwrap_or(0)),
        _ => "extern __shared__ __align__(16) char shared_memory[];\n".to_string(),
    };
    let block = if api == Api::Metal { BLOCK } else { "blockIdx" };
    let list = parameters.join(", ");
    let source = format!(
        "{head}{qualifiers}{entry}({list}) {{\n{shared}uint32_t const block = {block}.x;\n{branches}}}\n"
    );
    let shared_bytes = texts.iter().map(|t| t.shared_bytes).max().unwrap_or(0);
    Ok(KernelText { source, entry, shared_bytes })
}

/// What Metal calls the index of a block.
const BLOCK: &str = "threadgroup_position_in_grid";

/// A text cut into what is joined in different ways.
struct Pieces<'a> {
    /// Everything before the entry point.
    preamble: &'a str,
    /// What stands before its name.
    qualifiers: &'a str,
    parameters: Vec<&'a str>,
    body: &'a str,
}

impl<'a> Pieces<'a> {
    fn of(source: &'a str) -> Result<Pieces<'a>, String> {
        let at = marker(source).ok_or("a part has no entry point")?;
        let line = source[..at].rfind('\n').map_or(0, |i| i + 1);
        let open = entry_parenthesis(source, at).ok_or("a part's entry point has no parameters")?;
        let close = open + matching(&source[open..]).ok_or("a part's parameters do not end")?;
        let name = source[..open].rfind(' ').ok_or("a part's entry point has no name")? + 1;
        let body = source[close..].find('{').map(|i| close + i + 1);
        let (body, end) = body.zip(source.rfind('}')).ok_or("a part has no body")?;
        Ok(Pieces {
            preamble: &source[..line],
            qualifiers: &source[line..name],
            parameters: split(&source[open + 1..close]),
            body: &source[body..end],
        })
    }

    /// Declarations and directives, one by one.
    fn items(&self) -> Result<Vec<&'a str>, String> {
        let (mut items, mut start, mut depth, mut at) = (Vec::new(), 0, 0, 0);
        for line in self.preamble.split_inclusive('\n') {
            at += line.len();
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
            let text = line.trim();
            if depth == 0 && (text.is_empty() || text.starts_with('#') || text.ends_with(';')) {
                items.push(self.preamble[start..at].trim());
                start = at;
            }
        }
        if start < self.preamble.len() {
            return Err(format!("an unknown declaration: {}", &self.preamble[start..]));
        }
        items.retain(|item| !item.is_empty());
        Ok(items)
    }
}

/// What the parts come to.
struct Whole<'a> {
    api: Api,
    /// The same of all parts.
    qualifiers: &'a str,
    /// Buffers by their place.
    parameters: BTreeMap<usize, String>,
    /// What Metal tells a thread of itself, by attribute.
    builtins: BTreeMap<&'a str, String>,
    /// Most that a part's text declares; of texts that leave it to the launch, 0.
    shared_bytes: Option<u32>,
    branches: String,
}

impl<'a> Whole<'a> {
    fn new(api: Api) -> Whole<'a> {
        let mut builtins = BTreeMap::new();
        if api == Api::Metal {
            let parameter = format!("uint3 const {BLOCK} [[{BLOCK}]]");
            builtins.insert("[[threadgroup_position_in_grid]]", parameter);
        }
        let (qualifiers, branches) = ("", String::new());
        Whole { api, qualifiers, parameters: BTreeMap::new(), builtins, shared_bytes: None, branches }
    }

    fn add(&mut self, part: &Part, pieces: &Pieces<'a>, start: u32, is_last: bool) -> Result<(), String> {
        self.qualifiers = pieces.qualifiers;
        let mut known = String::new();
        let mut places = part.arguments.iter();
        for parameter in &pieces.parameters {
            match attribute(parameter).filter(|a| !a.starts_with("[[buffer(")) {
                Some(attribute) => known += &self.builtin(parameter, attribute)?,
                None => {
                    let place = places.next().ok_or("a part has more parameters than buffers")?;
                    known += &self.buffer(parameter, *place)?;
                }
            }
        }
        if places.next().is_some() {
            return Err("a part has fewer parameters than buffers".to_string());
        }
        let mut body = pieces.body.to_string();
        if let Some((declaration, name, bytes)) = shared_memory(pieces.body) {
            self.shared_bytes = self.shared_bytes.max(Some(bytes));
            let space = if self.api == Api::Metal { "threadgroup " } else { "" };
            body = body.replacen(declaration, &format!("{space}char * const {name} = shared_memory;"), 1);
        }
        if body.contains("__shared__") {
            return Err("a part declares shared memory twice".to_string());
        }
        let [x, y, z] = part.launch.grid;
        let index = if start == 0 { "block".to_string() } else { format!("block - {start}") };
        for (i, name) in ["x", "y", "z"].into_iter().enumerate() {
            body = body.replace(&format!("blockIdx.{name}"), &format!("block_{name}"));
            body = body.replace(&format!("gridDim.{name}"), &format!("{}", part.launch.grid[i]));
        }
        let otherwise = if start == 0 { "" } else { " else " };
        let branch = if is_last { String::new() } else { format!("if (block < {}) ", start + part.blocks()) };
        let axes = match (y, z) {
            (1, 1) => [index, "0".to_string(), "0".to_string()],
            _ => [
                format!("({index}) % {x}"),
                format!("({index}) / {x} % {y}"),
                format!("({index}) / {}", x * y),
            ],
        };
        let _ = writeln!(self.branches, "{otherwise}{branch}{{");
        for (name, value) in ["x", "y", "z"].into_iter().zip(axes) {
            let _ = writeln!(self.branches, "uint32_t const block_{name} = {value};");
        }
        self.branches += &format!("{known}{body}}}");
        if is_last {
            self.branches.push('\n');
        }
        Ok(())
    }

    /// Declares a buffer, and says how a part knows it.
    fn buffer(&mut self, parameter: &'a str, place: usize) -> Result<String, String> {
        let plain = attribute(parameter).map_or(parameter, |a| parameter.trim_end_matches(a)).trim();
        let (declared, name) = plain.rsplit_once(' ').ok_or("a parameter without a type")?;
        let pointer = declared.trim_end_matches("__restrict__").trim_end();
        let pointer = pointer.strip_suffix("const").unwrap_or(pointer).trim_end();
        if !pointer.ends_with('*') {
            return Err(format!("a parameter that is no pointer: {parameter}"));
        }
        let of_metal = if self.api == Api::Metal { format!(" [[buffer({place})]]") } else { String::new() };
        let whole = format!("{declared} buffer_{place}{of_metal}");
        self.parameters.entry(place).or_insert(whole);
        Ok(format!("{declared} {name} = ({pointer})buffer_{place};\n"))
    }

    /// Declares what Metal tells a thread, and says how a part knows it.
    fn builtin(&mut self, parameter: &'a str, attribute: &'a str) -> Result<String, String> {
        let plain = parameter.trim_end_matches(attribute).trim();
        let (declared, name) = plain.rsplit_once(' ').ok_or("a parameter without a type")?;
        let word = attribute.trim_matches(['[', ']']);
        if ["thread_position_in_grid", "threadgroups_per_grid"].contains(&word) {
            return Err(format!("a part asks for {word}, which the whole has another of"));
        }
        self.builtins.insert(attribute, format!("{declared} {word} {attribute}"));
        let value = if word == BLOCK { "uint3(block_x, block_y, block_z)" } else { word };
        Ok(format!("{declared} {name} = {value};\n"))
    }
}

/// The declaration of shared memory in a body, its name and how many bytes it says.
fn shared_memory(body: &str) -> Option<(&str, &str, u32)> {
    let line = |line: &&str| {
        line.starts_with("extern __shared__")
            || line.contains("threadgroup char ") && line.starts_with("alignas")
    };
    let declaration = body.lines().find(line)?;
    let (rest, bytes) = declaration.trim_end_matches("];").rsplit_once('[')?;
    Some((declaration, rest.rsplit_once(' ')?.1, bytes.parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#include <a.h>\nstruct b {\n  int c;\n};\nextern \"C\" __global__ void __launch_bounds__(64) \
        one(int const* const __restrict__ v0, float * const __restrict__ v1) {\n\
        extern __shared__ __align__(4) char v2[];\nv1[blockIdx.y] = gridDim.x;\n}\n";

    #[test]
    fn a_text_is_cut_into_pieces() {
        let pieces = Pieces::of(TEXT).unwrap();
        assert_eq!(pieces.items().unwrap(), ["#include <a.h>", "struct b {\n  int c;\n};"]);
        assert_eq!(pieces.qualifiers, "extern \"C\" __global__ void __launch_bounds__(64) ");
        assert_eq!(pieces.parameters.len(), 2);
        assert_eq!(shared_memory(pieces.body), Some(("extern __shared__ __align__(4) char v2[];", "v2", 0)));
        let metal = "\nalignas(16) threadgroup char v3[2000];\n";
        assert_eq!(shared_memory(metal).map(|(_, name, bytes)| (name, bytes)), Some(("v3", 2000)));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let Err(why) = Pieces::of("void f() {}") else { panic!("no entry point") };
        assert!(why.contains("no entry point"), "{why}");
        let unknown = TEXT.replacen("struct b {", "int f() {", 1).replacen("};", "}", 1);
        assert!(Pieces::of(&unknown).unwrap().items().unwrap_err().contains("unknown declaration"));
        let mut whole = Whole::new(Api::Metal);
        assert!(whole.buffer("int v0 [[buffer(0)]]", 0).unwrap_err().contains("no pointer"));
        let grid = whole.builtin("uint3 const v1 [[threadgroups_per_grid]]", "[[threadgroups_per_grid]]");
        assert!(grid.unwrap_err().contains("asks for threadgroups_per_grid"));
    }
}
