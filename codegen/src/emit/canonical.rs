//! One spelling of a text: names that cubecl draws by chance are given anew, in order of use.
use std::collections::BTreeMap;

/// The text with values numbered in order of use, parameters in order of buffer and then of name,
/// the entry point called `entry`, and without the record of lengths and scalars that cubecl passes:
/// no launch has any.
///
/// # Errors
/// What is not as cubecl writes it, or a kernel that reads that record.
pub(super) fn canonical(source: &str, entry: &str) -> Result<String, String> {
    let marker = marker(source).ok_or("the text has no entry point")?;
    let open = entry_parenthesis(source, marker).ok_or("the entry point has no parameters")?;
    let close = open + matching(&source[open..]).ok_or("the entry point's parameters do not end")?;
    let name = source[..open].rfind(|c| !is_word(c)).map_or(0, |i| i + 1);
    let mut parameters = split(&source[open + 1..close]);
    parameters.retain(|p| !p.contains("info_st"));
    parameters.sort_by_key(|p| attribute(p).filter(|a| !a.starts_with("[[buffer")).unwrap_or(""));
    let head = without(&source[..name], "struct info_st {", "};\n");
    let body = without(&source[close..], "dynamic_meta_v", ";");
    let body = without(&body, "& info_v", ";");
    if ["info_v", "dynamic_meta", "info_st"].iter().any(|word| body.contains(word)) {
        return Err("the kernel reads lengths or scalars, which no launch passes".to_string());
    }
    Ok(renumbered(&format!("{head}{entry}({}{body}", parameters.join(", "))))
}

/// Where the text says that what follows is an entry point.
pub(super) fn marker(source: &str) -> Option<usize> {
    ["__global__", "[[kernel]]"].into_iter().find_map(|m| source.find(m))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The first parenthesis behind `marker` that follows a name of ours and not an attribute.
pub(super) fn entry_parenthesis(source: &str, marker: usize) -> Option<usize> {
    let mut from = marker;
    loop {
        let open = from + source[from..].find('(')?;
        let start = source[..open].rfind(|c| !is_word(c)).map_or(0, |i| i + 1);
        if open > start && !source[start..open].starts_with("__") {
            return Some(open);
        }
        from = open + matching(&source[open..])?;
    }
}

/// Where the parenthesis that begins `text` is closed.
pub(super) fn matching(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(i, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        (c == ')' && depth == 0).then_some(i)
    })
}

/// The parts between commas that stand in no bracket.
pub(super) fn split(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let outside = |c: char| {
        depth += i32::from("(<[".contains(c)) - i32::from(")>]".contains(c));
        c == ',' && depth == 0
    };
    list.split(outside).map(str::trim).collect()
}

/// The attribute of a parameter.
pub(super) fn attribute(parameter: &str) -> Option<&str> {
    parameter.find("[[").map(|at| &parameter[at..])
}

/// The text without the statement that holds `needle`: from behind the end of the one before it to
/// the end of the next `end`.
fn without(text: &str, needle: &str, end: &str) -> String {
    let Some(at) = text.find(needle) else { return text.to_string() };
    let start = text[..at].rfind(['{', ';', '}']).map_or(0, |i| i + 1);
    let stop = text[at..].find(end).map_or(text.len(), |i| at + i + end.len());
    text[..start].to_string() + "\n" + text[stop..].trim_start_matches('\n')
}

/// The text with the number behind each `v` that is a word or a part of one between underscores
/// replaced by the rank of its first use.
fn renumbered(text: &str) -> String {
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |i| start + i);
        out += &rest[..start];
        for (i, part) in rest[start..end].split('_').enumerate() {
            if i > 0 {
                out.push('_');
            }
            match part.strip_prefix('v').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                Some(number) => {
                    let next = ranks.len();
                    out += &format!("v{}", ranks.entry(number).or_insert(next));
                }
                None => out += part,
            }
        }
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: &str = "typedef int a;\nstruct info_st {\n  uint32_t static_meta[4];\n};\n\
        extern \"C\" __global__ void __launch_bounds__(64) k_0123abcd(int const* const v9, float * const v7, \
        info_st const* const v12) {\nuint32_t const* const dynamic_meta_v3 = f(v12 + 1);\n\
        const info_st& info_v2 = *v12;bool flag_v4_store = true;\nuint32_t const v5 = v9[0];\n}\n";

    #[test]
    fn names_are_given_anew_and_the_record_goes() {
        let text = canonical(CUDA, "kernel").unwrap();
        let want = "typedef int a;\nextern \"C\" __global__ void __launch_bounds__(64) \
            kernel(int const* const v0, float * const v1) {\nbool flag_v2_store = true;\nuint32_t const v3 = v0[0];\n}\n";
        assert_eq!(text, want);
    }

    #[test]
    fn parameters_without_a_buffer_are_sorted() {
        let metal = "[[max_total_threads_per_threadgroup(64)]] [[kernel]] void k_01(device int* v1 [[buffer(0)]], \
            uint3 v7 [[thread_position]], uint v5 [[a_lane]]) {}";
        let text = canonical(metal, "k").unwrap();
        assert!(
            text.contains("k(device int* v0 [[buffer(0)]], uint v1 [[a_lane]], uint3 v2 [[thread"),
            "{text}"
        );
    }

    #[test]
    fn a_kernel_that_reads_lengths_is_refused() {
        let reads = CUDA.replace("v9[0]", "info_v2.static_meta[0]");
        assert!(canonical(&reads, "k").unwrap_err().contains("lengths"));
    }
}
