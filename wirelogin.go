package main

import (
	"crypto/md5"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// scramTalk is a client's side of #auth, by a library that others wrote.
func scramTalk(t testing.TB, user, password string) *scram.ClientConversation {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	return client.WithMinIterations(1).NewConversation()
}

// firstStep sends the first message and returns the server's.
func (c *client) firstStep(talk *scram.ClientConversation) string {
	c.t.Helper()
	text, err := talk.Step("")
	if err != nil {
		c.t.Fatal(err)
	}
	c.send("#auth SCRAM-SHA-256 " + quote(text))
	return c.authText(c.read())
}

// authText is the message in an answer to #auth; a status is returned as it is.
func (c *client) authText(line string) string {
	c.t.Helper()
	if strings.HasPrefix(line, "@status ") {
		return line
	}
	words := wordsOf(line)
	if len(words) != 3 || words[0] != "@ret" || words[1] != "#auth" {
		c.t.Fatalf("#auth: got %q", line)
	}
	return words[2]
}

// lastStep answers the server's first message. It returns "" after a login, whose
// server the client has checked, or the status.
func (c *client) lastStep(talk *scram.ClientConversation, serverFirst string) string {
	c.t.Helper()
	text, err := talk.Step(serverFirst)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send("#auth " + quote(text))
	answer := c.authText(c.read())
	if strings.HasPrefix(answer, "@status ") {
		return answer
	}
	if _, err := talk.Step(answer); err != nil || !talk.Valid() {
		c.t.Fatalf("the client refuses %q: %v", answer, err)
	}
	return ""
}

// auth logs in by #auth; it returns "" or the status.
func (c *client) auth(user, password string) string {
	c.t.Helper()
	talk := scramTalk(c.t, user, password)
	return c.lastStep(talk, c.firstStep(talk))
}

// wantAuth logs in by #auth and expects "" or a status.
func (c *client) wantAuth(user, password, want string) {
	c.t.Helper()
	if got := c.auth(user, password); got != want {
		c.t.Fatalf("#auth as %q: %q, want %q", user, got, want)
	}
}

// salt is the salt and rounds that a name gets to see, after the nonce.
func (c *client) salt(user string) string {
	c.t.Helper()
	first := c.firstStep(scramTalk(c.t, user, "x"))
	_, salt, ok := strings.Cut(first, ",")
	if !ok {
		c.t.Fatalf("the first answer for %q is %q", user, first)
	}
	return salt
}

// challenged asks for a challenge and returns its answer.
func (c *client) challenged(password string) string {
	c.t.Helper()
	c.send("#challenge")
	words := wordsOf(c.read())
	if len(words) != 3 || words[0] != "@ret" || words[1] != "#challenge" || len(words[2]) < 32 {
		c.t.Fatalf("#challenge: got %q", words)
	}
	sum := md5.Sum([]byte(words[2] + password))
	return "md5:" + hex.EncodeToString(sum[:])
}
