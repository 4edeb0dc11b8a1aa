//! Every `tests/filetests/**/*.ds4ir` is a test.
//!
//! `;! pass = NAME` says what runs on each function, `;! target = NAME` whose prices it sees: `cpu`, or `device`,
//! which has a kernel for everything and is what holds where nothing is said. Lines
//! that start with `;>` are the expected output; `BLESS=1 cargo test` rewrites them.
use ds4_ir::cost::{Kernels, Needs, Rates};
use ds4_ir::plan::Maxima;
use ds4_ir::{Func, Value, parse_funcs, verify};
use ds4_passes::{Site, Target, canonicalize, fuse, pack, schedule, unfuse};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Sizes at which prices and memory are compared.
const SIZES: Maxima = Maxima { tokens: 1, wanted: 1, ctx: 4096 };

/// A device that runs every node in one launch.
struct Every;

impl Kernels for Every {
    fn name(&self) -> &'static str {
        "device"
    }

    fn rates(&self) -> Rates {
        Rates { launch_ns: 2_000, gb_s: 1_500, gflop_s: 40_000 }
    }

    fn has(&self, _: &str) -> bool {
        true
    }

    fn needs(&self, _: &Site<'_>, _: &Maxima) -> Option<Needs> {
        Some(Needs { launches: 1, scratch: 0 })
    }

    fn block(&self, _: &Func, _: &[Value], _: &Maxima) -> Option<u64> {
        Some(1)
    }
}

#[test]
fn filetests() {
    let mut files = Vec::new();
    find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests"), &mut files);
    assert!(files.len() >= 8, "{} files", files.len());
    let failures: Vec<String> = files
        .iter()
        .filter_map(|path| run(path).err().map(|why| format!("{}: {why}", path.display())))
        .collect();
    assert!(failures.is_empty(), "\n{}\nrun with BLESS=1 to accept", failures.join("\n"));
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { find(&path, files) } else { files.push(path) }
    }
}

fn run(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let word = |key: &str| text.lines().find_map(|l| l.strip_prefix(&format!(";! {key} = ")));
    let target = match word("target") {
        None | Some("device") => Target::Gpu(&Every),
        Some("cpu") => Target::Cpu,
        Some(other) => return Err(format!("no target {other}")),
    };
    let pass = word("pass").ok_or("no `;! pass = `")?;
    let price = |site: &Site<'_>| target.price(site, &SIZES);
    let apply = |f: &Func| match pass {
        "canonicalize" => Ok(canonicalize(f)),
        "fuse" => Ok(fuse(f, &price)),
        "unfuse" => Ok(unfuse(f)),
        "pack" => Ok(pack(f)),
        "schedule" => Ok(schedule(f, &Maxima { tokens: 512, wanted: 8, ctx: 4096 })),
        other => Err(format!("unknown pass `{other}`")),
    };
    let mut output = Vec::new();
    for func in parse_funcs(&text).map_err(|e| e.to_string())? {
        verify(&func).map_err(|e| format!("in: {}", e[0]))?;
        let result = apply(&func)?;
        verify(&result).map_err(|e| format!("out: {}", e[0]))?;
        let again = parse_funcs(&result.to_string()).map_err(|e| format!("printed: {e}"))?;
        if again != [result.clone()] {
            return Err("the output does not read back".to_string());
        }
        // The header is given by the input; only the body is of interest.
        let body = result.to_string();
        output.push(format!("func @{}{}", result.name, &body[body.find(") {").expect("a body") + 1..]));
    }
    let output = output.join("\n");
    let expected: String = text
        .lines()
        .filter_map(|l| l.strip_prefix(";>"))
        .map(|l| format!("{}\n", l.strip_prefix(' ').unwrap_or(l)))
        .collect();
    if output == expected {
        return Ok(());
    }
    if env::var("BLESS").is_err() {
        return Err(format!("expected\n{expected}got\n{output}"));
    }
    let source: String = text.lines().filter(|l| !l.starts_with(";>")).map(|l| format!("{l}\n")).collect();
    let quoted: String = output.lines().map(|l| format!("{}\n", format!(";> {l}").trim_end())).collect();
    fs::write(path, format!("{}\n\n{quoted}", source.trim_end())).unwrap();
    Ok(())
}
