//! Functions and types.
use super::lex::{Cursor, ParseError, Token};
use crate::ops::{Formal, op};
use crate::{Arg, Dim, Func, Lit, Node, Scalar, StateKind, StateType, Sym, TensorType, Type};

/// Reads the functions of a text.
///
/// # Errors
/// The first place where the text is not a function, a name is unknown, or an op does not exist.
/// Types are read as written; [`crate::verify`] checks them.
pub fn parse_funcs(text: &str) -> Result<Vec<Func>, ParseError> {
    let mut cursor = Cursor::new(text)?;
    let mut funcs = Vec::new();
    loop {
        cursor.skip_newlines();
        match cursor.peek() {
            Token::End => return Ok(funcs),
            Token::Word("func") => funcs.push(func(&mut cursor)?),
            other => return Err(cursor.error(format!("expected `func`, got {other}"))),
        }
    }
}

/// Reads one type of a weight or value, such as `bf16[8, 16]`.
///
/// # Errors
/// The first place where the text is no tensor type.
pub fn parse_tensor_type(text: &str) -> Result<TensorType, ParseError> {
    let mut c = Cursor::new(text)?;
    let ty = tensor_type(&mut c)?;
    c.skip_newlines();
    c.expect(Token::End)?;
    Ok(ty)
}

pub(super) fn func(c: &mut Cursor<'_>) -> Result<Func, ParseError> {
    c.expect(Token::Word("func"))?;
    let mut func = Func::new(c.at_name()?);
    c.expect(Token::Punct('('))?;
    c.skip_newlines();
    while c.peek() != Token::Punct(')') {
        formal(c, &mut func)?;
        c.skip_newlines();
        if !c.accept(Token::Punct(',')) {
            break;
        }
        c.skip_newlines();
    }
    c.expect(Token::Punct(')'))?;
    c.expect(Token::Punct('{'))?;
    c.expect(Token::Newline)?;
    while c.peek() != Token::Word("return") {
        if c.accept(Token::Word("launch")) {
            launch(c, &mut func)?;
        } else {
            node(c, &mut func)?;
        }
        c.expect(Token::Newline)?;
    }
    c.next();
    while let Token::Value(_) = c.peek() {
        let v = value(c, &func)?;
        func.results.push(v);
        if !c.accept(Token::Punct(',')) {
            break;
        }
    }
    c.expect(Token::Newline)?;
    c.expect(Token::Punct('}'))?;
    Ok(func)
}

fn formal(c: &mut Cursor<'_>, func: &mut Func) -> Result<(), ParseError> {
    match c.next() {
        Token::Value(name) => {
            if func.find(name).is_some() {
                return Err(c.error_before(format!("`%{name}` is defined twice")));
            }
            c.expect(Token::Punct(':'))?;
            let ty = ty(c)?;
            func.input(name, ty);
        }
        Token::At(name) => {
            if func.find_weight(name).is_some() {
                return Err(c.error_before(format!("`@{name}` is declared twice")));
            }
            c.expect(Token::Punct(':'))?;
            let ty = tensor_type(c)?;
            func.declare(name, ty);
        }
        other => return Err(c.error_before(format!("expected `%name` or `@name`, got {other}"))),
    }
    Ok(())
}

/// The nodes of a `launch { }` block.
fn launch(c: &mut Cursor<'_>, func: &mut Func) -> Result<(), ParseError> {
    c.expect(Token::Punct('{'))?;
    c.expect(Token::Newline)?;
    if c.peek() == Token::Punct('}') {
        return Err(c.error("expected the nodes of the launch, got none"));
    }
    func.open_launch();
    while c.peek() != Token::Punct('}') {
        node(c, func)?;
        c.expect(Token::Newline)?;
    }
    func.close_launch();
    c.expect(Token::Punct('}'))
}

fn node(c: &mut Cursor<'_>, func: &mut Func) -> Result<(), ParseError> {
    let name = c.value()?;
    if func.find(name).is_some() {
        return Err(c.error_before(format!("`%{name}` is defined twice")));
    }
    c.expect(Token::Punct('='))?;
    let op_name = c.word("an op")?;
    let op = op(op_name).ok_or_else(|| c.error_before(format!("unknown op `{op_name}`")))?;
    let mut args = Vec::new();
    for formal in op.operands() {
        if !args.is_empty() {
            c.expect(Token::Punct(','))?;
        }
        args.push(arg(c, func, formal)?);
    }
    c.expect(Token::Punct(':'))?;
    let ty = ty(c)?;
    func.push(name, ty, Node { op, args });
    Ok(())
}

fn arg(c: &mut Cursor<'_>, func: &Func, formal: Formal) -> Result<Arg, ParseError> {
    match c.peek() {
        Token::Value(_) if formal.takes_value() => Ok(Arg::Value(value(c, func)?)),
        Token::At(name) if formal.takes_weight() => {
            let w = func.find_weight(name);
            let w = w.ok_or_else(|| c.error(format!("`@{name}` is not declared in the header")))?;
            c.next();
            Ok(Arg::Weight(w))
        }
        Token::Word(name) if formal.is_literal() && name == formal.name => {
            c.next();
            c.expect(Token::Punct('='))?;
            Ok(Arg::Lit(literal(c.word("a literal")?)))
        }
        other => Err(c.error(format!("expected {formal}, got {other}"))),
    }
}

fn literal(word: &str) -> Lit {
    let looks_real = word.contains(['.', 'e']) && word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match (word.parse(), word.parse()) {
        (Ok(n), _) => Lit::Int(n),
        (_, Ok(x)) if looks_real => Lit::Real(x),
        _ => Lit::Word(word.to_string()),
    }
}

pub(super) fn value(c: &mut Cursor<'_>, func: &Func) -> Result<crate::Value, ParseError> {
    let name = c.value()?;
    func.find(name).ok_or_else(|| c.error_before(format!("`%{name}` is not defined")))
}

pub(super) fn ty(c: &mut Cursor<'_>) -> Result<Type, ParseError> {
    if c.accept(Token::Word("state")) {
        return Ok(Type::State(state_type(c)?));
    }
    if c.accept(Token::Word("param")) {
        return Ok(Type::Param(tensor_type(c)?));
    }
    Ok(Type::Tensor(tensor_type(c)?))
}

pub(super) fn state_type(c: &mut Cursor<'_>) -> Result<StateType, ParseError> {
    let word = c.word("a state kind")?;
    let kind = match word.split_once('/').map(|(kind, n)| (kind, n.parse::<u32>())) {
        Some(("ring", Ok(n))) if n > 0 => StateKind::Ring(n),
        Some(("entries", Ok(n))) if n > 0 => StateKind::Entries(n),
        Some(("tail", Ok(n))) if n > 0 => StateKind::Tail(n),
        _ => return Err(c.error_before(format!("expected ring/N, entries/N or tail/N, got `{word}`"))),
    };
    let ty = tensor_type(c)?;
    match ty.constants().as_deref() {
        Some([width]) => Ok(StateType { kind, scalar: ty.scalar, width: *width }),
        _ => Err(c.error_before(format!("a state row has one constant extent, got {ty}"))),
    }
}

pub(super) fn tensor_type(c: &mut Cursor<'_>) -> Result<TensorType, ParseError> {
    let word = c.word("an element type")?;
    let scalar = Scalar::parse(word);
    let scalar = scalar.ok_or_else(|| c.error_before(format!("unknown element type `{word}`")))?;
    c.expect(Token::Punct('['))?;
    let mut dims = Vec::new();
    loop {
        let word = c.word("an extent")?;
        let dim = word.parse().map(Dim::Const).ok().or_else(|| Sym::parse(word).map(Dim::Sym));
        dims.push(dim.ok_or_else(|| {
            c.error_before(format!("expected a number, t, w, nR or mR as extent, got `{word}`"))
        })?);
        if !c.accept(Token::Punct(',')) {
            break;
        }
    }
    c.expect(Token::Punct(']'))?;
    Ok(TensorType { scalar, dims })
}
