//! From a request to its response.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::guard::{Guard, Refusal, has_type};
use super::routes::{ADMIN, Body, OBSERVE, Route, Rule, find, parameter, query};
use super::swaps::{components, signature};
use super::{Sender, Sent, Service, Unwilling};
use crate::config::LogLevel;
use crate::metrics::Format;

/// One listener's side of the conversation.
pub(super) struct Door {
    service: Arc<dyn Service>,
    /// None for `observe`, which asks nobody for anything.
    guard: Option<Guard>,
}

impl Door {
    pub(super) fn new(service: Arc<dyn Service>, guard: Option<Guard>) -> Self {
        Self { service, guard }
    }

    /// Every request gets an answer.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        sender: &Sender,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let rules = if self.guard.is_some() { ADMIN } else { OBSERVE };
        let answered = match self.admit(rules, &request) {
            Ok(rule) => self.obey(rule, request, sender).await,
            Err(refusal) => Err(refusal),
        };
        Ok(answered.unwrap_or_else(|refusal| refuse(refusal, rules)))
    }

    /// Finds what is asked for, and whether the one who asks may.
    fn admit(&self, rules: &'static [Rule], request: &Request<Incoming>) -> Result<&'static Rule, Refusal> {
        let headers = request.headers();
        if let Some(guard) = &self.guard {
            guard.check_origin(request.uri(), headers)?;
        }
        let rule = find(rules, request.method(), request.uri().path()).map_err(|status| match status {
            StatusCode::NOT_FOUND => (status, "there is nothing of this name"),
            _ => (status, "this is asked for by another method"),
        })?;
        if let Some(guard) = &self.guard {
            guard.check_token(rule.scope, headers)?;
        }
        match rule.body {
            Some(body) if !has_type(headers, body.content_type) => {
                let wasm = body.content_type == "application/wasm";
                let expected =
                    if wasm { "the body must be application/wasm" } else { "the body must be application/json" };
                Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, expected))
            }
            _ => Ok(rule),
        }
    }

    async fn obey(
        &self,
        rule: &Rule,
        request: Request<Incoming>,
        sender: &Sender,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let format = Format::accepted(accept);
        let stage = parameter(rule.path, request.uri().path()).unwrap_or_default().to_owned();
        let headers = request.headers().clone();
        let key = query(request.uri().query(), "key");
        let body = match rule.body {
            Some(bounds) => read(request.into_body(), bounds).await?,
            None => Bytes::new(),
        };
        let service = &self.service;
        Ok(match rule.route {
            Route::Metrics => text(StatusCode::OK, format.content_type(), service.metrics(format)),
            Route::Live => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
            Route::Ready => match service.ready() {
                Ok(()) => text(StatusCode::OK, PLAIN, "ok\n".to_owned()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            },
            Route::Status => value(StatusCode::OK, &service.status()),
            Route::Pause | Route::Resume => {
                let paused = rule.route == Route::Pause;
                object(&body)?;
                service.pause(paused);
                value(StatusCode::OK, &json!({"paused": paused}))
            }
            Route::SwapStage => {
                let sent = vec![Sent { stage, bytes: body.to_vec(), signature: signature(&headers)? }];
                self.where_one_may_wait(sender, move |service, by| service.swap(sent, by)).await
            }
            Route::SwapAll => {
                let sent = components(&body)?;
                self.where_one_may_wait(sender, move |service, by| service.swap(sent, by)).await
            }
            Route::RollBack => {
                object(&body)?;
                self.where_one_may_wait(sender, |service, by| service.roll_back(by)).await
            }
            Route::State => {
                let key = key.ok_or((StatusCode::BAD_REQUEST, "`key` is no text, or its escapes are wrong"))?;
                self.where_one_may_wait(sender, move |service, _| service.state(&stage, &key)).await
            }
            Route::Swaps => value(StatusCode::OK, &service.swaps()),
            Route::LogLevel => match service.set_log_level(log_level(&body)?) {
                Ok(()) => value(StatusCode::OK, &object(&body)?),
                Err(why) => value(StatusCode::CONFLICT, &json!({"error": why})),
            },
        })
    }
}

impl Door {
    /// Does what takes its time on a thread of its own; it is done even if nobody waits for the answer any more.
    async fn where_one_may_wait<T: Display + Send + 'static>(
        &self,
        sender: &Sender,
        work: impl FnOnce(&dyn Service, &Sender) -> Result<T, Unwilling> + Send + 'static,
    ) -> Response<Full<Bytes>> {
        let (service, sender) = (self.service.clone(), sender.clone());
        let done = tokio::task::spawn_blocking(move || work(service.as_ref(), &sender)).await;
        let done = done.unwrap_or_else(|_| Err((500, "this failed in an unforeseen way".to_owned())));
        match done {
            Ok(answer) => value(StatusCode::OK, &answer),
            Err((status, why)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                value(status, &json!({"error": why}))
            }
        }
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// The whole body, within its bounds.
async fn read(body: Incoming, bounds: Body) -> Result<Bytes, Refusal> {
    const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    let most = bounds.bytes_max as u64;
    if body.size_hint().lower() > most {
        return Err(TOO_LARGE);
    }
    let whole = Limited::new(body, bounds.bytes_max).collect();
    match tokio::time::timeout(bounds.timeout.max(Duration::from_millis(1)), whole).await {
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        Ok(Err(why)) if why.is::<LengthLimitError>() => Err(TOO_LARGE),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body can't be read")),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// A command's body: nothing, or a JSON object.
fn object(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let value: Option<Value> = serde_json::from_slice(body).ok();
    value.filter(Value::is_object).ok_or((StatusCode::BAD_REQUEST, "the body must be a JSON object"))
}

fn log_level(body: &[u8]) -> Result<LogLevel, Refusal> {
    let object = object(body)?;
    let asked = object["level"].as_str().unwrap_or_default();
    let level = LogLevel::NAMES.iter().find(|(name, _)| *name == asked).map(|(_, level)| *level);
    level.ok_or((StatusCode::BAD_REQUEST, "expected {\"level\": …} with error, warn, info, debug or trace"))
}

fn refuse((status, why): Refusal, rules: &[Rule]) -> Response<Full<Bytes>> {
    let mut response = value(status, &json!({"error": why}));
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let mut methods: Vec<&str> = rules.iter().map(|rule| rule.method.as_str()).collect();
            methods.sort_unstable();
            methods.dedup();
            headers.extend(HeaderValue::from_str(&methods.join(", ")).map(|methods| (ALLOW, methods)));
        }
        _ => {}
    }
    response
}

fn value(status: StatusCode, value: &impl Display) -> Response<Full<Bytes>> {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
