//! `request_headers` and `response_headers` of a route, compiled.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::config::model;
use crate::config::template::{Segment, Template, Variable};

/// What fills the `%{…}` of header values.
pub trait Variables {
    /// Writes the variable's value, or nothing where it has none. Never asked for [`Variable::RequestHeader`].
    fn write(&self, variable: &Variable, value: &mut Vec<u8>);
}

/// Changes of headers. In this order: removed, set, added.
///
/// Values are rendered before anything changes, so `%{request.header.x}` is what the client sent also where a rule
/// removes `x`. A value that may not stand in a header (a line break from a percent-decoded name, say) is not written,
/// and neither is one whose variables are all empty. `set` removes the old value even then: what the operator sets, no
/// client may choose.
#[derive(Debug, Default)]
pub struct Rules {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
    /// Request headers that values name.
    named: Box<[HeaderName]>,
}

/// Request headers kept for the response's rules: the request itself is gone by then.
#[derive(Debug, Default)]
pub struct Captured(Vec<(HeaderName, HeaderValue)>);

#[derive(Debug)]
enum Value {
    /// `None` where it may not stand in a header; the configuration lets no such value through.
    Constant(Option<HeaderValue>),
    Rendered(Box<[Segment]>),
}

impl Rules {
    /// Compiles what the configuration says. Constant values are made here, once.
    pub fn compile(rules: &model::HeaderRules) -> Self {
        let values = |rules: &[(HeaderName, Template)]| -> Box<[(HeaderName, Value)]> {
            rules.iter().map(|(name, template)| (name.clone(), Value::compile(template))).collect()
        };
        let templates = rules.set.iter().chain(&rules.add);
        let named = templates.flat_map(|(_, template)| &template.segments).filter_map(|segment| match segment {
            Segment::Variable(Variable::RequestHeader(name)) => Some(name.clone()),
            _ => None,
        });
        Rules {
            remove: rules.remove.as_slice().into(),
            named: named.collect(),
            set: values(&rules.set),
            add: values(&rules.add),
        }
    }

    /// True where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The request headers that these rules will need once the response is there.
    pub fn capture(&self, request: &HeaderMap) -> Captured {
        let named = self.named.iter();
        Captured(named.filter_map(|name| Some((name.clone(), request.get(name)?.clone()))).collect())
    }

    /// Changes a request's headers.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, variables: &impl Variables) {
        let values = self.render(variables, |name| headers.get(name));
        self.change(headers, values);
    }

    /// Changes a response's headers.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, variables: &impl Variables, request: &Captured) {
        let header =
            |name: &HeaderName| request.0.iter().find(|(captured, _)| captured == name).map(|(_, value)| value);
        let values = self.render(variables, header);
        self.change(headers, values);
    }

    /// The values of `set`, then those of `add`.
    fn render<'a>(
        &self,
        variables: &impl Variables,
        request_header: impl Fn(&HeaderName) -> Option<&'a HeaderValue>,
    ) -> SmallVec<[Option<HeaderValue>; 4]> {
        let templates = self.set.iter().chain(&self.add);
        templates.map(|(_, value)| value.render(variables, &request_header)).collect()
    }

    fn change(&self, headers: &mut HeaderMap, values: SmallVec<[Option<HeaderValue>; 4]>) {
        let mut values = values.into_iter();
        for name in &self.remove {
            headers.remove(name);
        }
        for ((name, _), value) in self.set.iter().zip(values.by_ref()) {
            match value {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
        for ((name, _), value) in self.add.iter().zip(values) {
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
}

impl Value {
    fn compile(template: &Template) -> Self {
        if template.segments.iter().any(|segment| matches!(segment, Segment::Variable(_))) {
            return Value::Rendered(template.segments.as_slice().into());
        }
        let mut text = String::new();
        for segment in &template.segments {
            if let Segment::Literal(literal) = segment {
                text.push_str(literal);
            }
        }
        Value::Constant(HeaderValue::from_maybe_shared(Bytes::from(text)).ok())
    }

    fn render<'a>(
        &self,
        variables: &impl Variables,
        request_header: &impl Fn(&HeaderName) -> Option<&'a HeaderValue>,
    ) -> Option<HeaderValue> {
        let segments = match self {
            Value::Constant(value) => return value.clone(),
            Value::Rendered(segments) => segments,
        };
        let mut text = Vec::with_capacity(64);
        let mut filled = false;
        for segment in segments {
            let start = text.len();
            match segment {
                Segment::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                Segment::Variable(Variable::RequestHeader(name)) => {
                    text.extend_from_slice(request_header(name).map_or(b"", HeaderValue::as_bytes));
                }
                Segment::Variable(variable) => variables.write(variable, &mut text),
            }
            filled |= matches!(segment, Segment::Variable(_)) && text.len() > start;
        }
        // `from_maybe_shared` takes no byte below a space but the tab, and no DEL: nothing that ends a line.
        filled.then(|| HeaderValue::from_maybe_shared(Bytes::from(text)).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every variable is this.
    struct Fixed(&'static [u8]);

    impl Variables for Fixed {
        fn write(&self, _: &Variable, value: &mut Vec<u8>) {
            value.extend_from_slice(self.0);
        }
    }

    fn name(name: &str) -> HeaderName {
        HeaderName::try_from(name).unwrap()
    }

    fn template(segments: impl IntoIterator<Item = Segment>) -> Template {
        Template { segments: segments.into_iter().collect(), written: None }
    }

    fn literal(text: &str) -> Template {
        template([Segment::Literal(text.into())])
    }

    fn variable(variable: Variable) -> Template {
        template([Segment::Variable(variable)])
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (field, value) in fields {
            headers.append(name(field), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn removed_then_set_then_added() {
        let rules = Rules::compile(&model::HeaderRules {
            remove: vec![name("x-a"), name("x-b")],
            set: vec![(name("x-b"), literal("set")), (name("x-c"), literal("")), (name("x-d"), template([]))],
            add: vec![
                (name("x-a"), literal("added")),
                (name("x-b"), literal("added")),
                (name("x-e"), literal("\u{e9}")),
            ],
        });
        let mut headers = map(&[("x-a", "1"), ("x-b", "1"), ("x-b", "2"), ("x-c", "1"), ("x-c", "2"), ("x-z", "1")]);
        rules.apply_to_request(&mut headers, &Fixed(b""));
        let expected = [
            ("x-a", "added"),
            ("x-b", "set"),
            ("x-b", "added"),
            ("x-c", ""),
            ("x-d", ""),
            ("x-e", "\u{e9}"),
            ("x-z", "1"),
        ];
        assert_eq!(headers, map(&expected));
        assert!(!rules.is_empty() && Rules::default().is_empty());
    }

    #[test]
    fn variables_are_filled_in_and_request_headers_are_those_of_the_client() {
        let mixed = template([
            Segment::Literal("<".into()),
            Segment::Variable(Variable::Route),
            Segment::Literal("|".into()),
            Segment::Variable(Variable::RequestHeader(name("x-a"))),
            Segment::Literal(">".into()),
        ]);
        let rules = Rules::compile(&model::HeaderRules {
            remove: vec![name("x-a")],
            set: vec![(name("x-b"), mixed)],
            add: vec![],
        });
        let request = map(&[("x-a", "client"), ("x-a", "second")]);
        let mut headers = request.clone();
        rules.apply_to_request(&mut headers, &Fixed(b"route"));
        assert_eq!(headers, map(&[("x-b", "<route|client>")]));

        let mut response = map(&[("x-a", "of the response")]);
        rules.apply_to_response(&mut response, &Fixed(b"route"), &rules.capture(&request));
        assert_eq!(response, map(&[("x-b", "<route|client>")]));
        let mut response = HeaderMap::new();
        rules.apply_to_response(&mut response, &Fixed(b""), &Captured::default());
        assert_eq!(response, HeaderMap::new());
    }

    #[test]
    fn what_is_empty_or_invalid_is_not_written_and_set_still_removes() {
        for value in [&b""[..], b"a\r\nx-evil: 1", b"a\nb", b"\0", b"\x7f"] {
            let rules = Rules::compile(&model::HeaderRules {
                remove: vec![],
                set: vec![
                    (name("x-client"), variable(Variable::ClientAddress)),
                    (name("x-constant"), literal("a\r\nx-evil: 1")),
                ],
                add: vec![(name("x-more"), variable(Variable::RequestPath))],
            });
            let mut headers = map(&[("x-client", "forged"), ("x-constant", "forged"), ("x-more", "1")]);
            rules.apply_to_request(&mut headers, &Fixed(value.to_vec().leak()));
            assert_eq!(headers, map(&[("x-more", "1")]), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_ends_a_line(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let rules = Rules::compile(&model::HeaderRules {
                set: vec![(name("x-a"), variable(Variable::RequestHost))],
                ..model::HeaderRules::default()
            });
            let mut headers = HeaderMap::new();
            rules.apply_to_request(&mut headers, &Fixed(value.clone().leak()));
            match headers.get("x-a") {
                Some(written) => {
                    prop_assert_eq!(written.as_bytes(), &*value);
                    prop_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                }
                None => prop_assert!(value.is_empty() || value.iter().any(|byte| (*byte < 32 && *byte != 9) || *byte == 127)),
            }
        }
    }
}
