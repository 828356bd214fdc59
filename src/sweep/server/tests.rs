//! The load against a server of some lines that speaks the protocol, exactly or badly.

mod protocol;
mod specs;
mod talker;
