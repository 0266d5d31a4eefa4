//! Phases that wait for nothing.
//!
//! Each of Pingora's phases is a boxed future. Most of ours await nothing: they run when they are called, and what they return
//! has no state, so that its box is no allocation.

use pingora::Result;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;

/// What a phase returns.
pub(super) type Phase<'p, T> = Pin<Box<dyn Future<Output = T> + Send + 'p>>;

/// A phase as the attribute on the trait would write it, but without a future around its body, which returns a [`Phase`].
macro_rules! phase {
    ($(#[$about:meta])* fn $name:ident<$($life:lifetime),+>($($arg:tt)*) -> $out:ty $body:block) => {
        $(#[$about])*
        fn $name<$($life,)+ 'p>($($arg)*) -> $crate::edge::phase::Phase<'p, $out>
        where
            $($life: 'p,)+
            Self: 'p,
        $body
    };
}

pub(super) use phase;

/// Goes through a phase.
pub(super) fn done<'p>(phase: impl FnOnce() -> Result<()>) -> Phase<'p, Result<()>> {
    match phase() {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(())))),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

/// One that says yes or no.
pub(super) fn said<'p>(yes: bool) -> Phase<'p, Result<bool>> {
    if yes { Box::pin(poll_fn(|_| Poll::Ready(Ok(true)))) } else { Box::pin(poll_fn(|_| Poll::Ready(Ok(false)))) }
}

/// One without a result.
pub(super) fn over<'p>() -> Phase<'p, ()> {
    Box::pin(poll_fn(|_| Poll::Ready(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of_val;

    #[tokio::test]
    async fn what_has_been_gone_through_takes_no_memory() {
        assert_eq!((size_of_val(&*done(|| Ok(()))), size_of_val(&*said(true)), size_of_val(&*over())), (0, 0, 0));
        assert!(done(|| Ok(())).await.is_ok() && said(true).await.unwrap() && !said(false).await.unwrap());
        assert!(done(|| pingora::Error::e_explain(pingora::ErrorType::InternalError, "")).await.is_err());
        over().await;
    }
}
