//! The description at `/openapi.json`, as a judge over the answers that are really given.

use std::collections::HashMap;
use std::net::SocketAddr;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Request, Response, get};

/// What the schemas know the document as.
const NAME: &str = "http://vertice.invalid/openapi.json";

/// A description.
pub(crate) struct Contract {
    document: Value,
    schemas: Schemas,
    /// Where in the document which schema is.
    compiled: HashMap<String, SchemaIndex>,
}

impl Contract {
    /// The description that this listener gives; `None` while it has too much to do to give one.
    pub(crate) fn of(listener: SocketAddr) -> Option<Self> {
        let answer = get("/openapi.json").try_send(listener).ok().filter(|answer| answer.status != 503)?;
        Some(Self::new(answer.expect(200).json()))
    }

    pub(crate) fn new(document: Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource(NAME, document.clone()).unwrap();
        let mut schemas = Schemas::new();
        let compile = |pointer: String| {
            let index = compiler.compile(&format!("{NAME}#{pointer}"), &mut schemas);
            (pointer, index.unwrap_or_else(|error| panic!("{error:#}")))
        };
        let compiled = schemas_in(&document, "").into_iter().map(compile).collect();
        Self { document, schemas, compiled }
    }

    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// Every `METHOD /path` it lists, with its operation.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (String, &Value)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        })
    }

    /// Fails unless the answer is one that the description announces for this request; and a request that succeeded must be
    /// one that it allows.
    pub(crate) fn check(&self, request: &Request, response: &Response) -> Result<(), String> {
        let Some(template) = self.template(request.path()) else { return Ok(()) };
        let method = if request.method == "HEAD" { "GET" } else { &request.method }.to_lowercase();
        let path = format!("/paths/{}", escape(template));
        if self.document.pointer(&format!("{path}/{method}")).is_none() {
            return self.check_unlisted(&path, response);
        }
        let operation = format!("{path}/{method}");
        let answer = self.follow(format!("{operation}/responses/{}", response.status))?;
        self.check_headers(&answer, response)?;
        self.check_content(&answer, request, response)?;
        if response.status < 300 { self.check_request(&operation, request) } else { Ok(()) }
    }

    /// A method that is not listed is refused, and the answer names those that are.
    fn check_unlisted(&self, path: &str, response: &Response) -> Result<(), String> {
        let listed = self.document.pointer(path).and_then(Value::as_object).unwrap();
        let allow = response.header("allow").unwrap_or_default();
        let names_all = listed.keys().all(|method| allow.split(", ").any(|word| word.eq_ignore_ascii_case(method)));
        if response.status != 405 || !names_all {
            return Err(format!("{} with Allow {allow:?} to a method that is not listed", response.status));
        }
        self.validate("/components/schemas/Problem", &response.json())
    }

    fn check_headers(&self, answer: &str, response: &Response) -> Result<(), String> {
        let announced = self.at(answer)["headers"].as_object();
        for name in announced.into_iter().flat_map(serde_json::Map::keys) {
            let header = self.follow(format!("{answer}/headers/{}", escape(name)))?;
            match response.header(name) {
                Some(text) => self.validate(&format!("{header}/schema"), &self.typed(&header, text))?,
                None if self.at(&header)["required"] == true => return Err(format!("no {name}")),
                None => {}
            }
        }
        Ok(())
    }

    fn check_content(&self, answer: &str, request: &Request, response: &Response) -> Result<(), String> {
        let given = response.header("content-type").unwrap_or_default();
        let media = given.split(';').next().unwrap_or_default().trim();
        let content = format!("{answer}/content/{}", escape(media));
        if self.document.pointer(&content).is_none() {
            return Err(format!("the media type {given:?} is not announced"));
        }
        if request.method == "HEAD" || !response.complete || media == "text/event-stream" {
            return Ok(());
        }
        let body = if media.ends_with("json") { response.json() } else { Value::String(response.text()) };
        self.validate(&format!("{content}/schema"), &body)
    }

    fn check_request(&self, operation: &str, request: &Request) -> Result<(), String> {
        let schema = format!("{operation}/requestBody/content/{}/schema", escape("application/json"));
        if self.document.pointer(&schema).is_some() {
            let body: Value = serde_json::from_slice(&request.whole_body()).map_err(|error| error.to_string())?;
            self.validate(&schema, &body).map_err(|error| format!("accepted, but {error}"))?;
        }
        let count = self.at(operation)["parameters"].as_array().map_or(0, Vec::len);
        for parameter in (0..count).map(|number| format!("{operation}/parameters/{number}")) {
            let described = self.at(&parameter);
            let given = (described["in"] == "query").then(|| request.query(described["name"].as_str().unwrap())).flatten();
            if let Some(text) = given {
                let value = self.typed(&parameter, &text);
                self.validate(&format!("{parameter}/schema"), &value).map_err(|error| format!("accepted, but {error}"))?;
            }
        }
        Ok(())
    }

    /// What a text means to the schema beside it.
    fn typed(&self, described: &str, text: &str) -> Value {
        let is_number = self.at(described)["schema"]["type"] == "integer";
        let number = is_number.then(|| text.parse::<u64>().ok()).flatten();
        number.map_or_else(|| Value::from(text), Value::from)
    }

    fn validate(&self, schema: &str, value: &Value) -> Result<(), String> {
        let index = *self.compiled.get(schema).ok_or_else(|| format!("no schema at {schema}"))?;
        self.schemas.validate(value, index).map_err(|error| format!("{error:#}"))
    }

    /// The templated path, if one fits.
    fn template(&self, path: &str) -> Option<&str> {
        let fits = |template: &&String| match template.strip_suffix("{name}") {
            Some(parent) => path.strip_prefix(parent).is_some_and(|name| !name.contains('/')),
            None => path == *template,
        };
        self.document["paths"].as_object()?.keys().find(fits).map(String::as_str)
    }

    fn at(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The pointer, or where the reference there points to.
    fn follow(&self, pointer: String) -> Result<String, String> {
        let here = self.document.pointer(&pointer).ok_or_else(|| format!("not announced: {pointer}"))?;
        Ok(here["$ref"].as_str().map_or(pointer, |target| target.trim_start_matches('#').to_owned()))
    }
}

/// Pointers to what is under a `schema` key, below `at`.
fn schemas_in(value: &Value, at: &str) -> Vec<String> {
    let steps: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (escape(key), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(number, value)| (number.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let below = |(step, value): (String, &Value)| {
        let pointer = format!("{at}/{step}");
        if step == "schema" || at == "/components/schemas" { vec![pointer] } else { schemas_in(value, &pointer) }
    };
    steps.into_iter().flat_map(below).collect()
}

/// One step of a JSON pointer (RFC 6901 §3).
fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

impl Request {
    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target().split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_decode_str(value).decode_utf8_lossy().into_owned())
        })
    }
}
