//! No text makes the parser or the verifier panic: damaged modules give an error, or verify.
use ds4_ir::{parse_funcs, parse_module, parse_tensor_type, verify, verify_module};

/// A module of every statement, kind of type and literal.
const MODULE: &str = include_str!("../../tests/filetests/cat/module.ds4ir");

/// Functions that hold every op.
const FUNCS: [&str; 10] = [
    include_str!("../../tests/filetests/cat/attend.ds4ir"),
    include_str!("../../tests/filetests/cat/compress.ds4ir"),
    include_str!("../../tests/filetests/cat/hyper.ds4ir"),
    include_str!("../../tests/filetests/cat/index.ds4ir"),
    include_str!("../../tests/filetests/cat/linear.ds4ir"),
    include_str!("../../tests/filetests/cat/moe.ds4ir"),
    include_str!("../../tests/filetests/cat/norm.ds4ir"),
    include_str!("../../tests/filetests/cat/params.ds4ir"),
    include_str!("../../tests/filetests/cat/rope.ds4ir"),
    include_str!("../../tests/filetests/cat/rows.ds4ir"),
];

/// What mutations put in, beside pieces of the text itself.
const PIECES: [&str; 44] = [
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "99999999999999999999",
    "1e308",
    "-0.0",
    "nan",
    "t",
    "w",
    "n4",
    "m4",
    "n0",
    "m128",
    "f32",
    "i32",
    "i64",
    "route",
    "kv8r2",
    "kv8r65535",
    "idx4",
    "e4m3x128",
    "fp4",
    "fp8",
    "q4_k",
    "iq2_xxs",
    "state",
    "param",
    "ring/1",
    "entries/4",
    "tail/4",
    "tail/4294967295",
    "%",
    "@",
    "->",
    ",",
    ":",
    "=",
    "\n",
    "[",
    "]",
    "\u{e9}",
    ";",
];

/// xorshift64*: the same texts on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// The words and the signs between them.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.chars() {
        let word = c.is_alphanumeric() || "_./-+%@".contains(c);
        match tokens.last_mut() {
            Some(last) if word && in_word => last.push(c),
            _ => tokens.push(c.to_string()),
        }
        in_word = word;
    }
    tokens
}

/// Replaces, inserts, drops or repeats a few tokens.
fn mutate(tokens: &[String], random: &mut Random) -> String {
    let mut tokens = tokens.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(tokens.len());
        let other = if random.below(2) == 0 {
            PIECES[random.below(PIECES.len())].to_string()
        } else {
            tokens[random.below(tokens.len())].clone()
        };
        match random.below(4) {
            0 => tokens.insert(at, other),
            1 if tokens.len() > 1 => drop(tokens.remove(at)),
            _ => tokens[at] = other,
        }
    }
    tokens.concat()
}

/// Whether the text parses, and whether all of it verifies.
fn judge(text: &str) -> (bool, bool) {
    let module = parse_module(text).map(|m| verify_module(&m).is_ok());
    let funcs = parse_funcs(text).map(|f| f.iter().all(|f| verify(f).is_ok()));
    match (module, funcs) {
        (Ok(fine), _) | (_, Ok(fine)) => (true, fine),
        (Err(a), Err(b)) => {
            for error in [a, b] {
                assert!(error.line <= text.lines().count() + 1, "{error}");
                assert!(error.column <= error.source.chars().count() + 1, "{error}");
            }
            (false, false)
        }
    }
}

/// Judges `n` mutations; how many parse, how many verify.
fn rounds(text: &str, n: usize, seed: u64) -> (usize, usize) {
    let source: String = text.lines().filter(|l| !l.starts_with(';')).map(|l| format!("{l}\n")).collect();
    let (tokens, mut random) = (tokens(&source), Random(seed));
    assert_eq!(judge(&source), (true, true), "the text that is mutated is whole");
    let mut counts = (0, 0);
    for _ in 0..n {
        let (parses, verifies) = judge(&mutate(&tokens, &mut random));
        counts = (counts.0 + usize::from(parses), counts.1 + usize::from(verifies));
    }
    counts
}

#[test]
fn mutated_modules_do_not_panic() {
    let (parsed, verified) = rounds(MODULE, 10_000, 1);
    // Neither side of the judgement is empty, so both the parser and the verifier were at work.
    assert!(parsed > 200 && verified > 20 && verified < parsed, "{parsed} parse, {verified} verify");
}

#[test]
fn mutated_functions_do_not_panic() {
    for (i, text) in FUNCS.iter().enumerate() {
        let (parsed, verified) = rounds(text, 3_000, 100 + i as u64);
        assert!(parsed > 100 && verified < parsed, "text {i}: {parsed} parse, {verified} verify");
    }
}

#[test]
fn arbitrary_bytes_do_not_panic() {
    let mut random = Random(7);
    for _ in 0..10_000 {
        let n = random.below(60);
        let bytes: Vec<u8> = (0..n).map(|_| random.below(256) as u8).collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(parse_module(&text).is_err());
        drop((parse_funcs(&text), parse_tensor_type(&text)));
        // Bytes of the language's own alphabet come further than any bytes.
        let signs = b"%@()[]{},:=;->\n tnmw048./abf";
        let text: String = bytes.iter().map(|b| char::from(signs[usize::from(*b) % signs.len()])).collect();
        assert!(parse_module(&text).is_err());
        drop((parse_funcs(&text), parse_funcs(&format!("func @f({text}")), parse_tensor_type(&text)));
    }
}
