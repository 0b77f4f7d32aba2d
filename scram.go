package main

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// scramMechanism is the one way that #auth knows (RFC 7677).
const scramMechanism = "SCRAM-SHA-256"

// nonceBytes is how much chance the server puts into an exchange.
const nonceBytes = 18

// exchange is a SCRAM login between its two steps (RFC 5802 section 5).
type exchange struct {
	header      string    // the GS2 header of the client's first message
	nonce       string    // the client's part and the server's
	authMessage string    // what was said so far, as both sides sign it
	verifier    *verifier // made up where nobody has the name
	account     *account  // nil: nobody has the name
	changes     int64     // of the account's password, when the verifier was read
}

// clientFirst is a client's first message, taken apart.
type clientFirst struct {
	header string // "n,," or "y,,", with an authorization identity or without
	bare   string // the rest
	user   string
	nonce  string
}

// parseClientFirst reads "n,,n=user,r=nonce" (RFC 5802 section 7). Who wants
// channel binding, an extension that must be understood, or to act for somebody
// else is refused like who sends nonsense.
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

// isNonce tells whether a text is printable ASCII without spaces and commas.
func isNonce(text string) bool {
	return text != "" && isASCII(text, '!') && !strings.Contains(text, ",")
}

// areExtensions tells whether fields are "x=value" for some letter x.
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

// begin answers a client's first message with the server's, "r=nonce,s=salt,i=rounds".
func (x *exchange) begin(m clientFirst, chance string) (serverFirst string) {
	x.header, x.nonce = m.header, m.nonce+chance
	serverFirst = "r=" + x.nonce + ",s=" + base64.StdEncoding.EncodeToString(x.verifier.salt) +
		",i=" + strconv.Itoa(x.verifier.rounds)
	x.authMessage = m.bare + "," + serverFirst
	return serverFirst
}

// finish answers a client's second message with the server's, "v=signature". ok
// is false where it does not belong to this exchange or does not prove that the
// client knows the password.
func (x *exchange) finish(m clientFinal) (serverFinal string, ok bool) {
	signed := x.authMessage + "," + m.withoutProof
	proved := x.verifier.proves(m.proof, signed) // whatever the rest says, so that the time tells nothing
	ok = proved && m.header == x.header && m.nonce == x.nonce && x.account != nil
	return "v=" + base64.StdEncoding.EncodeToString(x.verifier.signature(signed)), ok
}
