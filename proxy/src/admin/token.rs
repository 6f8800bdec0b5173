//! The token that callers of the admin API show.
//!
//! Only its digest is kept, and digests are compared, so that neither the time a comparison takes nor the memory of
//! the process tells the token.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, bail};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use etna_store::file;
use sha2::{Digest, Sha256};

/// What callers must show now, if anything: read from its file, and read again when told to.
pub struct Shown {
    file: Option<PathBuf>,
    token: RwLock<Option<Token>>,
}

impl Shown {
    /// Reads the file, if there is one.
    pub(super) fn read(file: Option<PathBuf>) -> anyhow::Result<Arc<Shown>> {
        let token = file.as_deref().map(Token::read).transpose()?;
        Ok(Arc::new(Shown { file, token: RwLock::new(token) }))
    }

    /// Reads the file again; whether there is one. After an error the former token is still the one to show.
    pub fn read_again(&self) -> anyhow::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let token = Token::read(file)?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(true)
    }

    /// Whether there is something to show.
    pub(super) fn is_set(&self) -> bool {
        self.file.is_some()
    }

    /// Whether a request shows what it must.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.as_ref().is_none_or(|token| token.is_shown(headers))
    }
}

/// A token, as a digest.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// Reads a token from its file; white space around it does not count.
    pub(super) fn read(path: &Path) -> anyhow::Result<Token> {
        let text = file::read(path, LONGEST_FILE)
            .with_context(|| format!("cannot read the admin token file {}", path.display()))?;
        let token = text.trim_ascii();
        let digest = Token::new(token);
        let is_fit = token.len() >= SHORTEST && token.iter().all(u8::is_ascii_graphic);
        if !is_fit {
            bail!(
                "the admin token file {} must hold one word of at least {SHORTEST} characters: make one with \
                 `openssl rand -hex 32`",
                path.display()
            );
        }
        warn_if_open(path);
        Ok(digest)
    }

    fn new(token: &[u8]) -> Token {
        Token(Sha256::digest(token).into())
    }

    /// Whether a request shows this token, once, as `Authorization: Bearer …`.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return false };
        let Ok(field) = field.to_str() else { return false };
        let Some((scheme, shown)) = field.split_once(' ') else { return false };
        scheme.eq_ignore_ascii_case("bearer") && same(&self.0, &Token::new(shown.trim().as_bytes()).0)
    }
}

/// Equal, found out in a time that does not depend on where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0) {
        tracing::warn!(path = %path.display(), "every user can read the admin token file: chmod o= it");
    }
}

const SHORTEST: usize = 16;
const LONGEST_FILE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_whole_token_passes_and_only_once() {
        let token = Token::new(b"0123456789abcdef");
        assert!(token.is_shown(&headers(&["Bearer 0123456789abcdef"])));
        assert!(token.is_shown(&headers(&["bearer 0123456789abcdef"])));
        for wrong in
            ["Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef", "Bearer ", "Bearer"]
        {
            assert!(!token.is_shown(&headers(&[wrong])), "{wrong}");
        }
        assert!(!token.is_shown(&headers(&[])));
        assert!(!token.is_shown(&headers(&["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"])));
    }

    #[test]
    fn short_and_many_worded_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for bad in ["", "short", "two words of some length here"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Token::read(&path).is_err(), "{bad:?}");
        }
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Token::read(&path).unwrap().is_shown(&headers(&["Bearer 0123456789abcdef"])));
    }
}
