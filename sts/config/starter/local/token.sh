#!/bin/sh
# Prints a subject token of the local issuer, valid for ten minutes. Needs openssl.
#
#     sh local/token.sh checkout > token
#     curl -s http://127.0.0.1:8443/token -d audience=orders \
#          -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
#          -d subject_token_type=urn:ietf:params:oauth:token-type:jwt --data-urlencode subject_token@token
set -eu
subject=${1:-checkout}
team=${2:-shop}
here=$(cd "$(dirname "$0")/.." && pwd)
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
header=$(printf '{"alg":"RS256","typ":"JWT","kid":"local"}' | base64url)
claims=$(printf '{"iss":"https://laptop.local.example","aud":"http://127.0.0.1:8443","sub":"%s","team":"%s","iat":%d,"exp":%d}' \
	"$subject" "$team" "$now" "$((now + 600))" | base64url)
signature=$(printf '%s.%s' "$header" "$claims" | openssl dgst -sha256 -sign "$here/secrets/local-issuer.pem" -binary | base64url)
printf '%s.%s.%s' "$header" "$claims" "$signature"
