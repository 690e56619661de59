//! One function an operation: read the request, call one use case, show the result.

mod actions;
mod data;
mod images;
mod info;
mod lineage;
mod members;
mod openapi;
mod schemas;
mod tags;
mod wellknown;

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::route::Endpoint;
use crate::v2::Refused;

/// Leads a request to its handler.
pub(crate) async fn handle(endpoint: Endpoint, call: Call) -> Answer {
    match endpoint {
        Endpoint::Root | Endpoint::Versions => wellknown::versions(endpoint, &call),
        Endpoint::Health => wellknown::health(&call).await,
        Endpoint::Metrics => wellknown::metrics(&call),
        Endpoint::OpenApi => openapi::show(),
        Endpoint::V2 => wellknown::v2(&call),
        Endpoint::ListImages => images::list(call).await,
        Endpoint::CreateImage => images::create(call).await,
        Endpoint::ShowImage => images::show(call).await,
        Endpoint::UpdateImage => images::update(call).await,
        Endpoint::DeleteImage => images::delete(call).await,
        Endpoint::UploadImage => data::upload(call).await,
        Endpoint::DownloadImage => data::download(call).await,
        Endpoint::StageImage => data::stage(call).await,
        Endpoint::Deactivate => actions::deactivate(call).await,
        Endpoint::Reactivate => actions::reactivate(call).await,
        Endpoint::Flatten => lineage::flatten(call).await,
        Endpoint::Coalesce => lineage::coalesce(call).await,
        Endpoint::Extents => lineage::extents(call).await,
        Endpoint::Delta => lineage::delta(call).await,
        Endpoint::AddTag => tags::add(call).await,
        Endpoint::RemoveTag => tags::remove(call).await,
        Endpoint::ListMembers => members::list(call).await,
        Endpoint::AddMember => members::add(call).await,
        Endpoint::ShowMember => members::show(call).await,
        Endpoint::UpdateMember => members::update(call).await,
        Endpoint::RemoveMember => members::remove(call).await,
        Endpoint::ImageSchema => schemas::image(&call),
        Endpoint::ImagesSchema => schemas::images(&call),
        Endpoint::MemberSchema => schemas::member(),
        Endpoint::MembersSchema => schemas::members(),
        Endpoint::ImportInfo => info::import(),
        Endpoint::StoresInfo => info::stores(&call),
        Endpoint::StoresDetail => info::stores_detail(call).await,
        Endpoint::LineageInfo => lineage::info(&call),
        Endpoint::Usage => info::usage(),
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(refused.status, refused.message)
    }
}
