package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"homeroom/store"
)

// saltBytes is how long a verifier's salt is.
const saltBytes = 16

// verifier is the part of a password that is kept: enough to check the password and to
// run SCRAM-SHA-256 with it (RFC 5802 section 3, RFC 7677), not enough to log in.
type verifier struct {
	salt      []byte
	rounds    int
	storedKey []byte
	serverKey []byte
}

// newVerifier hashes a prepared password with a fresh salt. It costs rounds.
func newVerifier(password string, rounds int) (*verifier, error) {
	return makeVerifier(password, randomBytes(saltBytes), rounds)
}

// makeVerifier computes StoredKey and ServerKey (RFC 5802 section 3).
func makeVerifier(password string, salt []byte, rounds int) (*verifier, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	stored := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	return &verifier{
		salt: salt, rounds: rounds,
		storedKey: stored[:], serverKey: hmacSHA256(salted, "Server Key"),
	}, nil
}

// randomBytes are for salts, nonces and keys.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	return b
}

// hmacSHA256 is the only MAC that SCRAM-SHA-256 uses.
func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// matches checks a prepared password in constant time. It costs v.rounds.
func (v *verifier) matches(password string) bool {
	other, err := makeVerifier(password, v.salt, v.rounds)
	return err == nil && subtle.ConstantTimeCompare(v.storedKey, other.storedKey) == 1
}

// String is the form of RFC 5803: SCRAM-SHA-256$rounds:salt$stored:server.
func (v *verifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", v.rounds, b64(v.salt), b64(v.storedKey), b64(v.serverKey))
}

// packed is String, and "" for no verifier.
func (v *verifier) packed() string {
	if v == nil {
		return ""
	}
	return v.String()
}

// proves checks, in constant time, a client's proof that it knows the password
// (RFC 5802 section 3). It costs next to nothing.
func (v *verifier) proves(proof []byte, authMessage string) bool {
	clientKey := make([]byte, sha256.Size)
	if subtle.XORBytes(clientKey, proof, hmacSHA256(v.storedKey, authMessage)) != len(clientKey) {
		return false
	}
	stored := sha256.Sum256(clientKey)
	return subtle.ConstantTimeCompare(v.storedKey, stored[:]) == 1
}

// signature proves to a client that the server knows the account too.
func (v *verifier) signature(authMessage string) []byte { return hmacSHA256(v.serverKey, authMessage) }

// parseVerifier reads what String wrote.
func parseVerifier(s string) (*verifier, error) {
	bad := func() (*verifier, error) { return nil, fmt.Errorf("reading a password verifier: bad form") }
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '$' || r == ':' })
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		return bad()
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil || rounds < 1 {
		return bad()
	}
	v := &verifier{rounds: rounds}
	for i, field := range []*[]byte{&v.salt, &v.storedKey, &v.serverKey} {
		if *field, err = base64.StdEncoding.DecodeString(parts[i+2]); err != nil || len(*field) == 0 {
			return bad()
		}
	}
	return v, nil
}

// clientFirst is a client's first message, taken apart.
type clientFirst struct {
	header string // "n,," or "y,,", with an authorization identity or without
	bare   string // the rest
	user   string
	nonce  string
}

// parseClientFirst reads "n,,n=user,r=nonce" (RFC 5802 section 7). Channel binding,
// extensions that must be understood, and acting for somebody else are refused like
// nonsense.
func parseClientFirst(text string) (m clientFirst, ok bool) {
	parts := strings.SplitN(text, ",", 3)
	if len(parts) < 3 || parts[0] != "n" && parts[0] != "y" {
		return m, false
	}
	m.header, m.bare = parts[0]+","+parts[1]+",", parts[2]
	fields := strings.Split(m.bare, ",")
	if len(fields) < 2 || !areExtensions(fields[2:]) {
		return m, false
	}
	user, ok1 := strings.CutPrefix(fields[0], "n=")
	nonce, ok2 := strings.CutPrefix(fields[1], "r=")
	if !ok1 || !ok2 || !isNonce(nonce) || parts[1] != "" && parts[1] != "a="+user {
		return m, false
	}
	m.nonce = nonce
	m.user, ok = unescapeSASL(user)
	return m, ok
}

// unescapeSASL reads a user name in which =2C is a comma and =3D is "=".
func unescapeSASL(text string) (user string, ok bool) {
	rest := strings.NewReplacer("=2C", "", "=3D", "").Replace(text)
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(text), text != "" && !strings.Contains(rest, "=")
}

// isNonce reports whether a text is printable ASCII without spaces and commas.
func isNonce(text string) bool {
	return text != "" && isASCII(text, '!') && !strings.Contains(text, ",")
}

// areExtensions reports whether fields are "x=value" for some letter x.
func areExtensions(fields []string) bool {
	for _, f := range fields {
		if len(f) < 3 || f[1] != '=' || f[0]|0x20 < 'a' || f[0]|0x20 > 'z' {
			return false
		}
	}
	return true
}

// clientFinal is a client's second message, taken apart.
type clientFinal struct {
	header       string // the GS2 header again
	nonce        string
	withoutProof string
	proof        []byte
}

// parseClientFinal reads "c=biws,r=nonce,p=proof" (RFC 5802 section 7).
func parseClientFinal(text string) (m clientFinal, ok bool) {
	fields := strings.Split(text, ",")
	last := len(fields) - 1
	if last < 2 || !areExtensions(fields[2:last]) {
		return m, false
	}
	binding, ok1 := strings.CutPrefix(fields[0], "c=")
	nonce, ok2 := strings.CutPrefix(fields[1], "r=")
	proof, ok3 := strings.CutPrefix(fields[last], "p=")
	if !ok1 || !ok2 || !ok3 || !isNonce(nonce) {
		return m, false
	}
	header, err := base64.StdEncoding.DecodeString(binding)
	if err != nil {
		return m, false
	}
	m = clientFinal{header: string(header), nonce: nonce, withoutProof: strings.Join(fields[:last], ",")}
	m.proof, err = base64.StdEncoding.DecodeString(proof)
	return m, err == nil && len(m.proof) == len(hmacSHA256(nil, ""))
}

// md5Proves checks, in constant time, that a sum is MD5(challenge + password): a proof
// in the manner of the original server, for which the server has to know the password.
func md5Proves(challenge, password string, sum []byte) bool {
	want := md5.Sum([]byte(challenge + password))
	return subtle.ConstantTimeCompare(want[:], sum) == 1
}

// gcm seals with AES-256-GCM and random nonces. 2^32 columns sealed with one key are safe
// (NIST SP 800-38D, 8.3).
type gcm struct{ aead cipher.AEAD }

// newGCM derives the key for one purpose from a secret (HKDF-SHA-256, RFC 5869).
func newGCM(secret []byte, purpose string) (store.Cipher, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "homeroom 1 "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return gcm{aead}, nil
}

// Seal appends nonce, ciphertext and tag to dst; place is authenticated with them.
func (g gcm) Seal(dst, clear, place []byte) []byte { return g.aead.Seal(dst, nil, clear, place) }

// Open opens what Seal made for the same place, in its own memory.
func (g gcm) Open(sealed, place []byte) ([]byte, error) {
	return g.aead.Open(sealed[:0], nil, sealed, place)
}
