//! The head of an answer that is about to be sent: some of its fields are lines already.
//!
//! A field of a map costs a hash, a place and a piece of memory for its value, and is written down in the end. A field that is
//! added on the way out, and that nobody has a reason to look at any more, can be written down at once. Who looks at it
//! nevertheless finds it, and who changes it has the lines put into the map first.

use http::response;

use super::heads;
use crate::head::{HeaderName, HeaderValue, Headers, ResponseHead, StatusCode};

/// A response head that is worked on. `lines` are fields as they are sent, each with the end of its line.
pub struct Written<'a> {
    pub head: &'a mut response::Parts,
    pub lines: &'a mut Vec<u8>,
}

/// Names and values of lines.
fn fields(lines: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((std::str::from_utf8(name).ok()?, value.strip_prefix(b": ")?))
    })
}

impl Written<'_> {
    fn has_line(&self, name: &HeaderName) -> bool {
        !self.lines.is_empty() && fields(self.lines).any(|(line, _)| line == name.as_str())
    }

    fn map(&mut self) -> heads::Response<'_> {
        heads::Response(self.head)
    }

    /// The head, after the lines were put into its map if one of them has this name.
    fn without_line(&mut self, name: &HeaderName) -> heads::Response<'_> {
        if self.has_line(name) {
            self.settle();
        }
        self.map()
    }

    #[cold]
    fn settle(&mut self) {
        let lines = std::mem::take(self.lines);
        for (name, value) in fields(&lines) {
            // Both were a field before.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
                self.map().append(&name, value);
            }
        }
    }
}

impl Headers for Written<'_> {
    fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        let in_map = self.head.headers.get(name).map(HeaderValue::as_bytes);
        in_map.or_else(|| fields(self.lines).find(|(line, _)| *line == name.as_str()).map(|(_, value)| value))
    }

    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
        self.head.headers.get_all(name).iter().for_each(|value| visit(value.as_bytes()));
        fields(self.lines).filter(|(line, _)| *line == name.as_str()).for_each(|(_, value)| visit(value));
    }

    fn all(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.head.headers.iter().for_each(|(name, value)| visit(name.as_str(), value.as_bytes()));
        fields(self.lines).for_each(|(name, value)| visit(name, value));
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.without_line(name).set(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        self.without_line(name).append(name, value);
    }

    fn append_text(&mut self, name: &HeaderName, value: &str) {
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            return;
        }
        for part in [name.as_str(), ": ", value, "\r\n"] {
            self.lines.extend_from_slice(part.as_bytes());
        }
    }

    fn remove(&mut self, name: &HeaderName) {
        self.without_line(name).remove(name);
    }

    fn reserve(&mut self, fields: usize) {
        self.map().reserve(fields);
    }

    fn reserve_text(&mut self, bytes: usize) {
        self.lines.reserve(bytes);
    }
}

impl ResponseHead for Written<'_> {
    fn status(&self) -> StatusCode {
        self.head.status
    }

    fn set_status(&mut self, status: StatusCode) {
        self.head.status = status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Fields;

    const A: HeaderName = HeaderName::from_static("x-a");
    const B: HeaderName = HeaderName::from_static("x-b");

    fn shown(head: &dyn Headers) -> Vec<String> {
        let mut all = Vec::new();
        head.all(&mut |name, value| all.push(format!("{name}={}", String::from_utf8_lossy(value))));
        all.sort();
        all
    }

    /// What a filter may do, one step for each letter, to a head that writes lines and to one that does not.
    fn both(steps: &str) -> [Vec<String>; 2] {
        let work = |head: &mut dyn Headers| {
            for step in steps.chars() {
                match step {
                    'a' => head.append_text(&A, "text: 1"),
                    'b' => head.append_text(&B, "\"b\";r=2"),
                    'p' => head.append(&A, HeaderValue::from_static("more")),
                    's' => head.set(&A, HeaderValue::from_static("set")),
                    '+' => drop(head.add(&A, &mut || HeaderValue::from_static("added"))),
                    _ => head.remove(&A),
                }
            }
            let mut all = shown(head);
            let mut each = Vec::new();
            head.each(&A, &mut |value| each.push(value.to_vec()));
            let has = [head.has(&A), head.has(&B)];
            all.push(format!("{each:?} {:?} {:?} {has:?}", head.get(&A), head.text(&B)));
            all
        };
        let mut parts = http::Response::new(()).into_parts().0;
        let mut lines = Vec::new();
        let written = work(&mut Written { head: &mut parts, lines: &mut lines });
        [written, work(&mut Fields::default())]
    }

    proptest::proptest! {
        #[test]
        fn whether_a_field_is_a_line_makes_no_difference(steps in "[abps+-]{0,8}") {
            let [written, kept] = both(&steps);
            proptest::prop_assert_eq!(written, kept);
        }
    }

    #[test]
    fn what_would_end_a_line_is_left_out() {
        let mut parts = http::Response::new(()).into_parts().0;
        let mut lines = Vec::new();
        let mut head = Written { head: &mut parts, lines: &mut lines };
        for value in ["a\r\nx: y", "a\nb", "\0", "\u{7f}"] {
            head.append_text(&A, value);
        }
        head.append_text(&B, "");
        assert_eq!(head.get(&B), Some(&b""[..]));
        assert_eq!(lines, b"x-b: \r\n");
    }
}
