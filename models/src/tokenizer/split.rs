//! Cutting text by a pattern in time linear in the text, for the patterns tokenizers use.
//!
//! Their one look-ahead, `\s+(?!\S)|\s+` at the end, leaves the last space of a run to the word that
//! follows. A backtracking engine gives up on runs of a million spaces, and the crate then stops
//! cutting without a word; so the look-ahead is done by hand on top of an engine without one.
use regex::Regex;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::pattern::Pattern;
use tokenizers::tokenizer::{Offsets, PreTokenizedString, PreTokenizer, Result, SplitDelimiterBehavior};

const LOOK_AHEAD: &str = r"|\s+(?!\S)|\s+";

/// A compiled split pattern: isolates its matches and keeps the gaps.
#[derive(Debug)]
pub(crate) enum Splitter {
    /// A pattern without look-around.
    Plain(Regex),
    /// A pattern that ends in `LOOK_AHEAD`; the group `spaces` is its last alternative.
    Spaces(Regex),
    /// Any other.
    Backtracking(Split),
}

impl Splitter {
    /// Compiles `pattern`, or says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> std::result::Result<Splitter, String> {
        if let Ok(regex) = Regex::new(pattern) {
            return Ok(Splitter::Plain(regex));
        }
        // What compiles without the look-ahead has it as alternatives of the outermost level.
        if let Some(head) = pattern.strip_suffix(LOOK_AHEAD).filter(|head| Regex::new(head).is_ok()) {
            let regex = Regex::new(&format!(r"{head}|(?P<spaces>\s+)"));
            return regex.map(Splitter::Spaces).map_err(|error| error.to_string());
        }
        let split =
            Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false);
        split.map(Splitter::Backtracking).map_err(|error| error.to_string())
    }
}

impl PreTokenizer for Splitter {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        let isolated = SplitDelimiterBehavior::Isolated;
        match self {
            Splitter::Plain(regex) => text.split(|_, piece| piece.split(regex, isolated)),
            Splitter::Spaces(regex) => text.split(|_, piece| piece.split(Spaces(regex), isolated)),
            Splitter::Backtracking(split) => split.pre_tokenize(text),
        }
    }
}

struct Spaces<'a>(&'a Regex);

impl Pattern for Spaces<'_> {
    fn find_matches(&self, text: &str) -> Result<Vec<(Offsets, bool)>> {
        let mut pieces = Vec::new();
        let (mut done, mut at) = (0, 0);
        while let Some(found) = self.0.find_at(text, at) {
            let (start, end) = (found.start(), self.trimmed(text, at, found));
            if end == start {
                let Some(c) = text[end..].chars().next() else { break };
                at = end + c.len_utf8();
                continue;
            }
            if done < start {
                pieces.push(((done, start), false));
            }
            pieces.push(((start, end), true));
            (done, at) = (end, end);
        }
        if done < text.len() || text.is_empty() {
            pieces.push(((done, text.len()), false));
        }
        Ok(pieces)
    }
}

impl Spaces<'_> {
    /// The end of the match that a search from `at` found, with the look-ahead applied.
    fn trimmed(&self, text: &str, at: usize, found: regex::Match<'_>) -> usize {
        let run = found.as_str();
        let last = run.char_indices().next_back().map_or(0, |(place, _)| place);
        // The run is as long as can be, so what follows it, if anything, is no space.
        if last == 0 || found.end() == text.len() || !run.chars().next_back().is_some_and(char::is_whitespace)
        {
            return found.end();
        }
        let groups = self.0.captures_at(text, at);
        let is_spaces = groups.is_some_and(|groups| groups.name("spaces").is_some());
        if is_spaces { found.start() + last } else { found.end() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::tokenizer::{OffsetReferential, OffsetType};

    fn cut(splitter: &dyn PreTokenizer, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        splitter.pre_tokenize(&mut pieces).unwrap();
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::None);
        splits.into_iter().map(|(piece, _, _)| piece.to_owned()).collect()
    }

    #[test]
    fn cuts_like_the_backtracking_engine() {
        let patterns = super::super::vocab::DEEPSEEK_PATTERNS;
        let gpt2 = super::super::GPT2_PATTERN;
        let parts = [
            " ", "  ", "\t", "\n", "\r\n", "a", "é", "1", "!", "\u{3000}", "\u{a0}", "x y", "#include", "日",
            "'s",
        ];
        let pairs = [patterns[2], gpt2, patterns[0]].map(|pattern| {
            let whole = SplitPattern::Regex(pattern.to_owned());
            let judge = Split::new(whole, SplitDelimiterBehavior::Isolated, false).unwrap();
            (Splitter::new(pattern).unwrap(), judge)
        });
        assert!(matches!(pairs[0].0, Splitter::Spaces(_)));
        let mut state = 1u64;
        for _ in 0..5000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text += parts[(state >> 33) as usize % parts.len()];
            }
            for (splitter, judge) in &pairs {
                assert_eq!(cut(splitter, &text), cut(judge, &text), "{text:?}");
            }
        }
    }

    #[test]
    fn kinds_of_patterns() {
        assert!(matches!(Splitter::new("a+"), Ok(Splitter::Plain(_))));
        assert!(matches!(Splitter::new(r"a|\s+(?!\S)|\s+"), Ok(Splitter::Spaces(_))));
        assert!(matches!(Splitter::new(r"(?:a|\s+(?!\S)|\s+)"), Ok(Splitter::Backtracking(_))));
        assert!(Splitter::new(r"(a|\s+(?!\S)|\s+").is_err());
        assert_eq!(cut(&Splitter::new(r"a*|\s+(?!\S)|\s+").unwrap(), "baa"), ["b", "aa"]);
    }
}
