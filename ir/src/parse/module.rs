//! Modules: declarations, functions, graphs.
use super::func::{func, state_type, tensor_type, ty};
use super::lex::{Cursor, ParseError, Token};
use crate::Func;
use crate::module::{Call, Class, Decl, Graph, GraphValue, Header, Module};

/// Reads one module.
///
/// # Errors
/// The first place where the text is not a module or a name is unknown. [`crate::verify_module`]
/// checks what is bound to what.
pub fn parse_module(text: &str) -> Result<Module, ParseError> {
    let mut c = Cursor::new(text)?;
    let mut module = heading(&mut c)?;
    loop {
        c.skip_newlines();
        match c.peek() {
            Token::End => return Ok(module),
            Token::Word("weight") => {
                let (name, ty) = decl(&mut c, tensor_type)?;
                module.weights.push(Decl { name, ty });
            }
            Token::Word("param") => {
                let (name, ty) = decl(&mut c, tensor_type)?;
                module.params.push(Decl { name, ty });
            }
            Token::Word("state") => {
                let (name, ty) = decl(&mut c, |c| {
                    c.expect(Token::Word("state"))?;
                    state_type(c)
                })?;
                module.states.push(Decl { name, ty });
            }
            Token::Word("func") => module.funcs.push(func(&mut c)?),
            Token::Word("graph") => {
                let graph = graph(&mut c, &module)?;
                module.graphs.push(graph);
            }
            other => {
                let message = format!("expected weight, state, param, func or graph, got {other}");
                return Err(c.error(message));
            }
        }
    }
}

fn heading(c: &mut Cursor<'_>) -> Result<Module, ParseError> {
    c.skip_newlines();
    c.expect(Token::Word("module"))?;
    let name = c.at_name()?.to_string();
    c.expect(Token::Punct('{'))?;
    c.expect(Token::Newline)?;
    c.expect(Token::Word("class"))?;
    let class = c.word("a numeric class")?;
    let class = Class::parse(class)
        .ok_or_else(|| c.error_before(format!("expected exact, official or fast, got `{class}`")))?;
    c.expect(Token::Newline)?;
    let ctx = number(c, "ctx")?;
    let vocab = number(c, "vocab")?;
    c.expect(Token::Punct('}'))?;
    let (weights, states, params, funcs, graphs) = Default::default();
    Ok(Module { name, class, ctx, vocab, weights, states, params, funcs, graphs })
}

fn number(c: &mut Cursor<'_>, key: &str) -> Result<u32, ParseError> {
    c.expect(Token::Word(key))?;
    let word = c.word("a number")?;
    let n = word.parse().map_err(|_| c.error_before(format!("expected a number, got `{word}`")))?;
    c.expect(Token::Newline)?;
    Ok(n)
}

fn decl<'a, T>(
    c: &mut Cursor<'a>,
    ty: impl FnOnce(&mut Cursor<'a>) -> Result<T, ParseError>,
) -> Result<(String, T), ParseError> {
    c.next();
    let name = c.word("a name")?.to_string();
    c.expect(Token::Punct(':'))?;
    let ty = ty(c)?;
    c.expect(Token::Newline)?;
    Ok((name, ty))
}

fn graph(c: &mut Cursor<'_>, module: &Module) -> Result<Graph, ParseError> {
    c.expect(Token::Word("graph"))?;
    let name = c.at_name()?.to_string();
    let mut graph = Graph { name, inputs: 0, values: Vec::new(), calls: Vec::new(), results: Vec::new() };
    c.expect(Token::Punct('('))?;
    while let Token::Value(_) = c.peek() {
        let name = c.value()?.to_string();
        c.expect(Token::Punct(':'))?;
        let ty = ty(c)?;
        graph.values.push(GraphValue { name, ty });
        if !c.accept(Token::Punct(',')) {
            break;
        }
    }
    graph.inputs = graph.values.len();
    c.expect(Token::Punct(')'))?;
    c.expect(Token::Punct('{'))?;
    c.expect(Token::Newline)?;
    while c.peek() == Token::Word("call") {
        let call = call(c, module, &mut graph)?;
        graph.calls.push(call);
        c.expect(Token::Newline)?;
    }
    c.expect(Token::Word("return"))?;
    graph.results = operands(c, &graph, Token::Newline)?;
    c.expect(Token::Newline)?;
    c.expect(Token::Punct('}'))?;
    Ok(graph)
}

fn operands(c: &mut Cursor<'_>, graph: &Graph, end: Token<'_>) -> Result<Vec<usize>, ParseError> {
    let mut ids = Vec::new();
    while c.peek() != end {
        let name = c.value()?;
        let id = graph.values.iter().position(|v| v.name == name);
        ids.push(id.ok_or_else(|| c.error_before(format!("`%{name}` is not defined")))?);
        if !c.accept(Token::Punct(',')) {
            break;
        }
    }
    Ok(ids)
}

fn call(c: &mut Cursor<'_>, module: &Module, graph: &mut Graph) -> Result<Call, ParseError> {
    c.expect(Token::Word("call"))?;
    let name = c.at_name()?;
    let index = module.funcs.iter().position(|f| f.name == name);
    let index = index.ok_or_else(|| c.error_before(format!("no function `@{name}` above")))?;
    let func = &module.funcs[index];
    let header = Header::of(func);
    c.expect(Token::Punct('('))?;
    let args = operands(c, graph, Token::Punct(')'))?;
    c.expect(Token::Punct(')'))?;
    c.expect(Token::Arrow)?;
    let mut outs = Vec::new();
    for v in &header.outs {
        if !outs.is_empty() {
            c.expect(Token::Punct(','))?;
        }
        let name = c.value()?.to_string();
        if graph.values.iter().any(|g| g.name == name) {
            return Err(c.error_before(format!("`%{name}` is defined twice")));
        }
        outs.push(graph.values.len());
        graph.values.push(GraphValue { name, ty: func.ty(*v).clone() });
    }
    let mut call = Call { func: index, args, outs, weights: vec![], states: vec![], params: vec![] };
    bindings(c, module, func, &header, &mut call)?;
    Ok(call)
}

fn bindings(
    c: &mut Cursor<'_>,
    module: &Module,
    func: &Func,
    header: &Header,
    call: &mut Call,
) -> Result<(), ParseError> {
    c.expect(Token::Punct('{'))?;
    c.expect(Token::Newline)?;
    for v in &header.states {
        call.states.push(binding(c, Token::Value(func.name(*v)), &module.states, "state")?);
    }
    for v in &header.params {
        call.params.push(binding(c, Token::Value(func.name(*v)), &module.params, "param")?);
    }
    for w in func.weights() {
        call.weights.push(binding(c, Token::At(func.weight_name(w)), &module.weights, "weight")?);
    }
    c.expect(Token::Punct('}'))
}

fn binding<T>(
    c: &mut Cursor<'_>,
    formal: Token<'_>,
    decls: &[Decl<T>],
    what: &str,
) -> Result<usize, ParseError> {
    c.expect(formal)?;
    c.expect(Token::Punct('='))?;
    let name = c.word("a name")?;
    // Printed modules declare weights in the order of their names, so a binary search mostly hits.
    let found = decls.binary_search_by(|d| d.name.as_str().cmp(name)).ok();
    let found = found.or_else(|| decls.iter().position(|d| d.name == name));
    let id = found.ok_or_else(|| c.error_before(format!("no {what} `{name}` is declared")))?;
    c.expect(Token::Newline)?;
    Ok(id)
}
