//! `docs/ops.md` is what the op table says. `BLESS=1` writes it anew.
use ds4_ir::ops::GROUPS;
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "\
# Operators

Written from the op table in `ir/src/ops` by `tests/docs.rs`; `BLESS=1 cargo test --test docs` writes it
anew. \"spec\" is the specification of the model family.

A node is one line, `%y = op operands : type`. The operands come in the order of the op's row:

| in a row | in the text | stands for |
|---|---|---|
| `x` | `%x` | a value, a parameter, or a state that is read |
| `x!` | `%x` | a state version that the op consumes; its result is the next version |
| `@w` | `@w` | a weight that the function's header declares |
| `?y` | `%y` or `@y` | a value or a weight |
| `k=` | `k=6` | a literal: a whole number, a real number or a word |

Shapes, element types and states are explained in `ir/src/types.rs` and `ir/src/scalar.rs`. What an op
takes and gives is checked by its row's `infer`; `tests/filetests` holds accepted and refused examples of
each, `ir/tests/ops` hand-computed results.
";

fn ops_md() -> String {
    let mut text = HEAD.to_string();
    for (group, rows) in GROUPS {
        write!(text, "\n## {group}\n\n| op | operands | computes |\n|---|---|---|\n").unwrap();
        for op in *rows {
            let doc = op.doc.replace('|', "\\|");
            writeln!(text, "| `{}` | `{}` | {doc} |", op.name, op.operands).unwrap();
        }
    }
    text
}

#[test]
fn the_list_of_ops_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ops.md");
    let expected = ops_md();
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let got = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == expected, "{}: stale; BLESS=1 writes it anew", path.display());
}
