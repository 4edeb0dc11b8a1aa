//! What a reviewer would otherwise have to remember.
use ds4_ir::ops::ops;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file of source code in lines.
const LINES_MAX: usize = 500;

/// The crates that each crate of the workspace may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("ds4", &["ds4-ir", "ds4-models", "ds4-passes", "ds4-codegen", "ds4-runtime"]),
    ("ds4-fuzz", &["ds4-ir", "ds4-models", "ds4-runtime"]),
    ("ds4-models", &["ds4-ir"]),
    ("ds4-passes", &["ds4-ir"]),
    ("ds4-codegen", &["ds4-ir"]),
    ("ds4-runtime", &["ds4-ir"]),
    ("ds4-ir", &[]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn dependencies_point_one_way() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name_of = |p: &serde_json::Value| p["name"].as_str().unwrap().to_string();
    let members: BTreeSet<String> = packages.iter().map(name_of).collect();
    assert!(members.len() > 4, "crates found: {members:?}");
    for package in packages {
        let from = name_of(package);
        let allowed = EDGES.iter().find(|(name, _)| *name == from);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{from}: a crate that EDGES does not know"));
        let dependencies = package["dependencies"].as_array().unwrap();
        for to in dependencies.iter().map(name_of).filter(|to| members.contains(to)) {
            assert!(allowed.contains(&to.as_str()), "{from} must not depend on {to}");
        }
    }
}

/// Files below `folder` with that extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn files_are_short() {
    let crates = fs::read_dir(root()).unwrap().map(|e| e.unwrap().path().join("src"));
    let folders = crates.filter(|p| p.is_dir()).chain([root().join("cli")]);
    let sources: Vec<PathBuf> = folders.flat_map(|f| files(&f, "rs")).collect();
    assert!(sources.len() > 50, "files found: {}", sources.len());
    for path in sources {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines, at most {LINES_MAX}", path.display());
    }
}

#[test]
fn rows_of_the_op_table_are_tidy() {
    let mut names = BTreeSet::new();
    for op in ops() {
        assert!(names.insert(op.name), "`{}` has two rows", op.name);
        assert!(op.doc.ends_with('.'), "`{}`: its doc is no sentence: {}", op.name, op.doc);
        let mut operands = BTreeSet::new();
        for operand in op.operands() {
            assert!(operands.insert(operand.name), "`{}` has two operands `{}`", op.name, operand.name);
        }
        let consumed = op.operands.split_whitespace().filter(|o| o.ends_with('!')).count();
        assert!(consumed <= 1, "`{}` consumes {consumed} states", op.name);
    }
}

#[test]
fn the_architecture_names_every_document() {
    let Ok(architecture) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    for path in files(&root().join("docs"), "md") {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        assert!(architecture.contains(&name), "ARCHITECTURE.md: {name} is not mentioned");
    }
}
