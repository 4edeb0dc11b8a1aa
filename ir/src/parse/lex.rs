//! Text to tokens, each with its place, and the cursor that the parsers move over them.
use std::fmt;

/// Why a text is not a function or a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected and what came.
    pub message: String,
    /// The line itself.
    pub source: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        writeln!(f, "    {}", self.source)?;
        write!(f, "    {}^", " ".repeat(self.column - 1))
    }
}
impl std::error::Error for ParseError {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// Letters, digits and `_ . / - +`: names, numbers, words.
    Word(&'a str),
    /// `%name`
    Value(&'a str),
    /// `@name`
    At(&'a str),
    /// One of `( ) { } [ ] , : =`
    Punct(char),
    Arrow,
    /// End of a line that holds anything.
    Newline,
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(w) => write!(f, "`{w}`"),
            Token::Value(v) => write!(f, "`%{v}`"),
            Token::At(w) => write!(f, "`@{w}`"),
            Token::Punct(c) => write!(f, "`{c}`"),
            Token::Arrow => f.write_str("`->`"),
            Token::Newline => f.write_str("end of line"),
            Token::End => f.write_str("end of text"),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '+')
}

/// Length of the word at the start of `text`; a word ends before `->`.
fn word_len(text: &str) -> usize {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    // `>` is no part of a word, so an arrow can only begin at the word's last character.
    if text[..end].ends_with('-') && text[end..].starts_with('>') { end - 1 } else { end }
}

/// Tokens of a text and a position among them.
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: Vec<(Token<'a>, usize)>,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Result<Cursor<'a>, ParseError> {
        let mut cursor = Cursor { text, tokens: Vec::new(), at: 0 };
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            cursor.lex_line(line, offset)?;
            offset += line.len();
        }
        // The end of a text is where its last line with code ends: an error there has a line to show.
        let end = cursor.tokens.last().map_or(0, |(_, offset)| *offset);
        cursor.tokens.push((Token::End, end));
        Ok(cursor)
    }

    fn lex_line(&mut self, line: &'a str, offset: usize) -> Result<(), ParseError> {
        let code = line.split(';').next().unwrap_or("").trim_end();
        let mut at = 0;
        while let Some(c) = code[at..].chars().next() {
            let rest = &code[at..];
            let (token, len) = match c {
                ' ' | '\t' => {
                    at += 1;
                    continue;
                }
                '%' | '@' => {
                    let len = word_len(&rest[1..]);
                    if len == 0 {
                        return Err(self.error_at(offset + at, format!("expected a name after `{c}`")));
                    }
                    let name = &rest[1..=len];
                    (if c == '%' { Token::Value(name) } else { Token::At(name) }, len + 1)
                }
                '(' | ')' | '{' | '}' | '[' | ']' | ',' | ':' | '=' => (Token::Punct(c), 1),
                '-' if rest.starts_with("->") => (Token::Arrow, 2),
                c if is_word(c) => {
                    let len = word_len(rest);
                    (Token::Word(&rest[..len]), len)
                }
                c => return Err(self.error_at(offset + at, format!("unexpected character {c:?}"))),
            };
            self.tokens.push((token, offset + at));
            at += len;
        }
        if !code.trim().is_empty() {
            self.tokens.push((Token::Newline, offset + code.len()));
        }
        Ok(())
    }

    fn error_at(&self, offset: usize, message: String) -> ParseError {
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let source = self.text[start..].lines().next().unwrap_or("").to_string();
        let line = before.matches('\n').count() + 1;
        ParseError { line, column: self.text[start..offset].chars().count() + 1, message, source }
    }

    /// The next token, not taken.
    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    /// Takes the next token; the end stays.
    pub(super) fn next(&mut self) -> Token<'a> {
        let (token, _) = self.tokens[self.at];
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    /// Takes the next token if it is `token`.
    pub(super) fn accept(&mut self, token: Token<'_>) -> bool {
        let hit = self.peek() == token;
        if hit {
            self.next();
        }
        hit
    }

    pub(super) fn skip_newlines(&mut self) {
        while self.accept(Token::Newline) {}
    }

    /// An error at the next token.
    pub(super) fn error(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.tokens[self.at].1, message.into())
    }

    /// An error at the token taken last.
    pub(super) fn error_before(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.tokens[self.at.saturating_sub(1)].1, message.into())
    }

    pub(super) fn expect(&mut self, token: Token<'_>) -> Result<(), ParseError> {
        if self.accept(token) {
            return Ok(());
        }
        Err(self.error(format!("expected {token}, got {}", self.peek())))
    }

    /// Takes a token of the kind that `pick` accepts.
    pub(super) fn take<T>(
        &mut self,
        what: &str,
        pick: impl FnOnce(Token<'a>) -> Option<T>,
    ) -> Result<T, ParseError> {
        match pick(self.peek()) {
            Some(x) => {
                self.next();
                Ok(x)
            }
            None => Err(self.error(format!("expected {what}, got {}", self.peek()))),
        }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        self.take(what, |t| if let Token::Word(w) = t { Some(w) } else { None })
    }

    pub(super) fn value(&mut self) -> Result<&'a str, ParseError> {
        self.take("`%name`", |t| if let Token::Value(v) = t { Some(v) } else { None })
    }

    pub(super) fn at_name(&mut self) -> Result<&'a str, ParseError> {
        self.take("`@name`", |t| if let Token::At(v) = t { Some(v) } else { None })
    }
}
