//! A device that grants whatever it is asked, with some content where an answer has any.

use vhost_core::{
    Backend, FrontendReply, FrontendRequest, Postcopy,
    wire::{config::Config, shared::SharedMemoryConfig, vring::VringState},
};

use crate::token::Token;

/// What the configuration space holds.
const CONFIG: [u8; 256] = [0xc5; 256];

/// The answer.
pub fn grant<'b, const V: usize, const R: usize, const D: usize>(
    back: &Backend<V, R, D>,
    request: FrontendRequest<'b, Token>,
) -> FrontendReply<'b, Token> {
    let in_postcopy = matches!(back.session().postcopy(), Postcopy::Listening | Postcopy::Answered);
    match request {
        FrontendRequest::SetMemTable(table, _) if in_postcopy => FrontendReply::SetMemTable(table),
        FrontendRequest::AddMemReg(region, _) if in_postcopy => FrontendReply::AddMemReg(region),
        FrontendRequest::GetVringBase(state) => FrontendReply::GetVringBase(VringState::new(state.index(), 0x0def)),
        FrontendRequest::GetConfig(config) => {
            let data = CONFIG.get(..config.data.len()).unwrap_or(config.data);
            FrontendReply::GetConfig(Config { data, ..config })
        }
        FrontendRequest::CreateCryptoSession(session) => FrontendReply::CreateCryptoSession(session),
        FrontendRequest::PostcopyAdvise => FrontendReply::PostcopyAdvise(Some(Token::new())),
        FrontendRequest::GetInflightFd(inflight) => FrontendReply::GetInflightFd(inflight, Some(Token::new())),
        FrontendRequest::GetSharedObject(_) => FrontendReply::GetSharedObject(Some(Token::new())),
        FrontendRequest::SetDeviceStateFd(..) => FrontendReply::SetDeviceStateFd(0x100, None),
        FrontendRequest::GetShmemConfig => FrontendReply::GetShmemConfig(SharedMemoryConfig::new(&[0, 0x1000])),
        _ => back.own_answer().unwrap_or(FrontendReply::Done),
    }
}
