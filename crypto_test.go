package main

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// rfcExchange is the example of RFC 7677 section 3.
const (
	rfcClientFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcServerFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcClientFinal = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

// rfcServer is the server's side of that example, before the first message.
func rfcServer(t testing.TB) *exchange {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	v, err := makeVerifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return &exchange{verifier: v, who: &identity{}}
}

// begun is rfcServer after the first message.
func begun(t testing.TB) *exchange {
	t.Helper()
	x := rfcServer(t)
	m, ok := parseClientFirst(rfcClientFirst)
	if !ok {
		t.Fatal("the client's first message is refused")
	}
	if got := x.begin(m, rfcServerNonce); got != rfcServerFirst {
		t.Fatalf("the server's first message is\n%s, want\n%s", got, rfcServerFirst)
	}
	return x
}

func TestScramExampleOfRFC(t *testing.T) {
	t.Parallel()
	x := begun(t)
	m, ok := parseClientFinal(rfcClientFinal)
	if !ok {
		t.Fatal("the client's final message is refused")
	}
	if got, ok := x.finish(m); got != rfcServerFinal || !ok {
		t.Errorf("the server's final message is %s, %v; want %s", got, ok, rfcServerFinal)
	}
}

// TestScramRefuses is final messages that have the right form and are wrong.
func TestScramRefuses(t *testing.T) {
	t.Parallel()
	for what, change := range map[string][2]string{
		"another proof":            {"p=dHz", "p=dHy"},
		"the client's nonce alone": {"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""},
		"another nonce":            {"%hvY", "%hvZ"},
		"another header":           {"c=biws", "c=eSws"},
		"an extension not signed":  {",p=", ",x=y,p="},
	} {
		text := strings.Replace(rfcClientFinal, change[0], change[1], 1)
		m, ok := parseClientFinal(text)
		if !ok || text == rfcClientFinal {
			t.Errorf("%s: %q has not the right form", what, text)
		}
		if _, ok := begun(t).finish(m); ok {
			t.Errorf("%s: accepted", what)
		}
	}
	nobody := begun(t)
	nobody.who = nil
	m, _ := parseClientFinal(rfcClientFinal)
	if _, ok := nobody.finish(m); ok {
		t.Error("a proof for a name that nobody has: accepted")
	}
}

func TestParseClientFirst(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]clientFirst{
		"n,,n=user,r=abc":                  {"n,,", "n=user,r=abc", "user", "abc"},
		"y,,n=user,r=abc":                  {"y,,", "n=user,r=abc", "user", "abc"},
		"n,a=user,n=user,r=abc":            {"n,a=user,", "n=user,r=abc", "user", "abc"},
		"n,,n=a=2Cb=3Dc=3D2C,r=a=b":        {"n,,", "n=a=2Cb=3Dc=3D2C,r=a=b", "a,b=c=2C", "a=b"},
		"n,,n=日本,r=!~,x=y,Z=,=":            {},
		"n,,n=日本,r=!~,x=y,Z== ":            {"n,,", "n=日本,r=!~,x=y,Z== ", "日本", "!~"},
		"":                                 {},
		"n,":                               {},
		"n,,":                              {},
		"N,,n=user,r=abc":                  {},
		"n=user,r=abc":                     {},
		",,n=user,r=abc":                   {},
		"p=,,n=user,r=abc":                 {},
		"p=tls-unique,,n=user,r=abc":       {},
		"p=tls-exporter,a=u,n=user,r=abc":  {},
		"n,b=user,n=user,r=abc":            {},
		"n,a=other,n=user,r=abc":           {},
		"n,,r=abc,n=user":                  {},
		"n,,n=user":                        {},
		"n,,n=user,r=":                     {},
		"n,,n=user,r=a b":                  {},
		"n,,n=user,r=é":                    {},
		"n,,n=,r=abc":                      {},
		"n,,n=us=er,r=abc":                 {},
		"n,,n=us=2cer,r=abc":               {},
		"n,,n=us=,r=abc":                   {},
		"n,,m=x,n=user,r=abc":              {},
		"n,,n=user,r=abc,":                 {},
		"n,,n=user,r=abc,x":                {},
		"n,,n=user,r=abc,1=x":              {},
		"n,,n=user,r=abc," + "é=x":         {},
		"n,,n=user,r=abc,x=y,,":            {},
		"n,,n=us=2=2CC=2Cer,r=abc":         {},
		"n,,n=us==2C2Cer,r=abc":            {},
		"n,,n=us=3D2Cer,r=abc":             {"n,,", "n=us=3D2Cer,r=abc", "us=2Cer", "abc"},
		"n,,n=" + "a b" + ",r=abc":         {"n,,", "n=a b,r=abc", "a b", "abc"},
		" n,,n=user,r=abc":                 {},
		"n,,n=user,r=abc\x00":              {},
		"n ,,n=user,r=abc":                 {},
		"n,a=,n=user,r=abc":                {},
		"n,a=us=2Cer,n=us=2Cer,r=a,x=long": {"n,a=us=2Cer,", "n=us=2Cer,r=a,x=long", "us,er", "a"},
	} {
		got, ok := parseClientFirst(text)
		if ok != (want != clientFirst{}) || ok && got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, ok, want)
		}
	}
}

func TestParseClientFinal(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "c=biws", "c=biws,r=abc", "c=biws,r=abc,p=", "c=biws,r=abc,p=AAAA", "c=biws,r=abc,p=?",
		"c=b,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "r=abc,c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"c=biws,r=,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		rfcClientFinal + ",x=y", rfcClientFinal + ",", rfcClientFinal + "A", strings.Replace(rfcClientFinal, ",p=", ",x,p=", 1),
		strings.Replace(rfcClientFinal, "dHz", "Hz", 1),
	} {
		if m, ok := parseClientFinal(text); ok {
			t.Errorf("%q was read as %q", text, m)
		}
	}
}

// TestScramWithAnotherClient has a client that others wrote at the other end.
func TestScramWithAnotherClient(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"user", "a,b=c", "日本"} {
		client, err := scram.SHA256.NewClient(user, "pencil", "")
		if err != nil {
			t.Fatal(err)
		}
		talk := client.NewConversation()
		step := func(from string) string {
			t.Helper()
			text, err := talk.Step(from)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		x := rfcServer(t)
		first, ok := parseClientFirst(step(""))
		if !ok || first.user != user {
			t.Fatalf("the first message of %s was read as %q, %v", user, first, ok)
		}
		final, ok := parseClientFinal(step(x.begin(first, "chance")))
		if !ok {
			t.Fatal("the final message is refused")
		}
		answer, ok := x.finish(final)
		step(answer)
		if !ok || !talk.Valid() {
			t.Errorf("%s: the server says %v, the client %v", user, ok, talk.Valid())
		}
	}
}

func FuzzClientMessages(f *testing.F) {
	for _, text := range []string{rfcClientFirst, rfcClientFinal, "y,a=a=2C,n=a=2C,r=x,x=y", "c=,r=x,p="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if m, ok := parseClientFirst(text); ok && (m.header+m.bare != text || m.user == "" || strings.Contains(m.nonce, ",")) {
			t.Fatalf("%q was read as %q", text, m)
		}
		if m, ok := parseClientFinal(text); ok && (!strings.HasPrefix(text, m.withoutProof+",p=") || len(m.proof) != 32) {
			t.Fatalf("%q was read as %q", text, m)
		}
	})
}

func TestVerifier(t *testing.T) {
	v, err := newVerifier("secret", 16)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseVerifier(v.String())
	if err != nil || !again.matches("secret") || again.matches("Secret") || again.matches("") {
		t.Errorf("%s does not check its password after it was stored: %v", v, err)
	}
	for _, bad := range []string{
		"", "x", "SCRAM-SHA-1$16:c2FsdA==$c2FsdA==:c2FsdA==", "SCRAM-SHA-256$0:c2FsdA==$c2FsdA==:c2FsdA==",
		"SCRAM-SHA-256$-1:c2FsdA==$c2FsdA==:c2FsdA==", "SCRAM-SHA-256$x:c2FsdA==$c2FsdA==:c2FsdA==",
		"SCRAM-SHA-256$16:!$c2FsdA==:c2FsdA==", "SCRAM-SHA-256$16:c2FsdA==$c2FsdA==",
	} {
		if v, err := parseVerifier(bad); err == nil {
			t.Errorf("%q was read as %v", bad, v)
		}
	}
}

func FuzzVerifier(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy")
	f.Add("SCRAM-SHA-256$$::1:c2FsdA==$c3RvcmVk:c2VydmVy")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVerifier(text)
		if err != nil {
			return
		}
		again, err := parseVerifier(v.String())
		if err != nil || again.rounds != v.rounds || !bytes.Equal(again.salt, v.salt) ||
			!bytes.Equal(again.storedKey, v.storedKey) || !bytes.Equal(again.serverKey, v.serverKey) {
			t.Fatalf("%q was read, written as %q and read as %v, %v", text, v, again, err)
		}
	})
}
