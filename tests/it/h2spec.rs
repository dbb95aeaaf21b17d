//! HTTP/2 in frames: the sections of RFC 9113 and RFC 7541 that h2spec checks, and floods. `docs/protocols.md` lists what is
//! checked here, and where the gateway differs.

mod floods;
mod frames;
mod sections;
