//! The cluster's certificates: one authority, and a certificate for everyone who talks to the API server.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::command::write_file;
use crate::error::{Result, file_error};

/// A key with its certificate, on disk.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The cluster's certificate authority and the directory that holds all certificates.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// The authority whose files are (or will be) in `dir`.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes the authority, the API server's certificate for `addresses`, and the keys that sign service accounts.
    pub(crate) fn create(&self, addresses: &[Ipv4Addr], names: &[&str]) -> Result<()> {
        let key = KeyPair::generate()?;
        write_file(&self.dir.join("ca.key"), &key.serialize_pem())?;
        write_file(&self.certificate(), &authority_params().self_signed(&key)?.pem())?;

        let signing = KeyPair::generate()?;
        write_file(&self.service_account_key(), &signing.serialize_pem())?;
        write_file(&self.service_account_public_key(), &signing.public_key_pem())?;

        let mut server = leaf_params("kube-apiserver", None);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for address in addresses {
            server.subject_alt_names.push(SanType::IpAddress((*address).into()));
        }
        for name in names {
            server.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        self.sign("apiserver", &server)?;
        Ok(())
    }

    /// Makes a certificate that proves to the API server that its bearer is `user`, a member of `group`.
    pub(crate) fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = leaf_params(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, &params)
    }

    /// Where the identity of that file name is.
    pub(crate) fn identity(&self, file: &str) -> Identity {
        Identity {
            certificate: self.dir.join(format!("{file}.crt")),
            key: self.dir.join(format!("{file}.key")),
        }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.dir.join("service-account.key")
    }

    pub(crate) fn service_account_public_key(&self) -> PathBuf {
        self.dir.join("service-account.pub")
    }

    fn sign(&self, file: &str, params: &CertificateParams) -> Result<Identity> {
        let authority_key = KeyPair::from_pem(&read(&self.dir.join("ca.key"))?)?;
        // The authority's parameters are constants, so issuer name and key id come out as in its certificate.
        let authority = authority_params();
        let issuer = Issuer::from_params(&authority, authority_key);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let identity = self.identity(file);
        write_file(&identity.key, &key.serialize_pem())?;
        write_file(&identity.certificate, &certificate.pem())?;
        Ok(identity)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "processhub-local-cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf_params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(file_error("read", path))
}
