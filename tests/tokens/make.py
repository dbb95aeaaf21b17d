"""Tokens of PyJWT, jwcrypto and Authlib, as JSON on standard output: what each made, and with what it is verified."""

import functools
import json
import sys
import warnings

warnings.simplefilter("ignore")  # Authlib announces its successor.

import jwt  # noqa: E402
from authlib.jose import JsonWebKey  # noqa: E402
from authlib.jose import jwt as authlib_jwt  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from jwcrypto import jwk as jwcrypto_jwk  # noqa: E402
from jwcrypto import jwt as jwcrypto_jwt  # noqa: E402

now = int(sys.argv[1])
SECRET = "a secret of sixty-four bytes that nobody uses for anything real!"

rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    "RS256": rsa_key, "RS384": rsa_key, "RS512": rsa_key, "PS256": rsa_key, "PS384": rsa_key, "PS512": rsa_key,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
HMAC = ["HS256", "HS384", "HS512"]


@functools.cache
def private_pem(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def claims(**other):
    made = {
        "iss": "https://id.example.com", "aud": ["api", "account"], "sub": "alice", "iat": now, "nbf": now, "exp": now + 300,
        "jti": "7f", "realm_access": {"roles": ["user", "offline_access"]}, "scope": "openid read:tasks",
    }
    made.update(other)
    return {name: value for name, value in made.items() if value is not None}


@functools.cache
def jwcrypto_key(algorithm):
    if algorithm in HMAC:
        return jwcrypto_jwk.JWK.from_password(SECRET)
    return jwcrypto_jwk.JWK.from_pem(private_pem(KEYS[algorithm]))


@functools.cache
def authlib_key(algorithm):
    return SECRET if algorithm in HMAC else JsonWebKey.import_key(private_pem(KEYS[algorithm]))


def by_pyjwt(algorithm, body, kid):
    key = SECRET if algorithm in HMAC else KEYS[algorithm]
    return jwt.encode(body, key, algorithm=algorithm, headers={"kid": kid})


def by_jwcrypto(algorithm, body, kid):
    token = jwcrypto_jwt.JWT(header={"alg": algorithm, "kid": kid, "typ": "JWT"}, claims=body)
    token.make_signed_token(jwcrypto_key(algorithm))
    return token.serialize()


def by_authlib(algorithm, body, kid):
    header = {"alg": algorithm, "kid": kid, "typ": "at+jwt"}
    return authlib_jwt.encode(header, body, authlib_key(algorithm)).decode()


def key_set(algorithm, maker):
    if maker == "authlib":
        public = JsonWebKey.import_key(public_pem(KEYS[algorithm])).as_dict()
    else:
        public = jwcrypto_jwk.JWK.from_pem(public_pem(KEYS[algorithm]).encode()).export_public(as_dict=True)
    public.update(kid="key-1", use="sig", alg=algorithm)
    return {"keys": [public]}


cases = []
for maker, make in {"pyjwt": by_pyjwt, "jwcrypto": by_jwcrypto, "authlib": by_authlib}.items():
    for algorithm in [*HMAC, *KEYS]:
        sources = [{"secret": SECRET}]
        if algorithm in KEYS:
            sources = [{"public_key": public_pem(KEYS[algorithm])}, {"jwks": key_set(algorithm, maker)}]
        for source in sources:
            for expected, body in {
                "ok": claims(),
                "expired": claims(exp=now),
                "not_yet": claims(nbf=now + 1),
                "audience": claims(aud="somebody else"),
                "issuer": claims(iss="https://evil.example"),
                "claims": claims(exp=None),
            }.items():
                token = make(algorithm, body, "key-1")
                cases.append({"maker": maker, "algorithm": algorithm, "token": token, "expected": expected, **source})
json.dump(cases, sys.stdout)
