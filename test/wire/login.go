package wire

import (
	"crypto/md5"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// ScramTalk returns a client's side of #auth, by a library that others wrote.
func ScramTalk(t testing.TB, user, password string) *scram.ClientConversation {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	return client.WithMinIterations(1).NewConversation()
}

// FirstStep sends the first message and returns the server's.
func (c *Client) FirstStep(talk *scram.ClientConversation) string {
	c.T.Helper()
	text, err := talk.Step("")
	if err != nil {
		c.T.Fatal(err)
	}
	c.Send("#auth SCRAM-SHA-256 " + quote(text))
	return c.authText(c.Read())
}

// authText returns the message in an answer to #auth; a status is returned as it is.
func (c *Client) authText(line string) string {
	c.T.Helper()
	if strings.HasPrefix(line, "@status ") {
		return line
	}
	words := Words(line)
	if len(words) != 3 || words[0] != "@ret" || words[1] != "#auth" {
		c.T.Fatalf("#auth: got %q", line)
	}
	return words[2]
}

// LastStep answers the server's first message. It returns "" after a login, whose
// server the client has checked, or the status.
func (c *Client) LastStep(talk *scram.ClientConversation, serverFirst string) string {
	c.T.Helper()
	text, err := talk.Step(serverFirst)
	if err != nil {
		c.T.Fatal(err)
	}
	c.Send("#auth " + quote(text))
	answer := c.authText(c.Read())
	if strings.HasPrefix(answer, "@status ") {
		return answer
	}
	if _, err := talk.Step(answer); err != nil || !talk.Valid() {
		c.T.Fatalf("the client refuses %q: %v", answer, err)
	}
	return ""
}

// auth logs in by #auth; it returns "" or the status.
func (c *Client) auth(user, password string) string {
	c.T.Helper()
	talk := ScramTalk(c.T, user, password)
	return c.LastStep(talk, c.FirstStep(talk))
}

// WantAuth logs in by #auth and expects "" or a status.
func (c *Client) WantAuth(user, password, want string) {
	c.T.Helper()
	if got := c.auth(user, password); got != want {
		c.T.Fatalf("#auth as %q: %q, want %q", user, got, want)
	}
}

// Salt returns the salt and the rounds that the server shows for a name.
func (c *Client) Salt(user string) string {
	c.T.Helper()
	first := c.FirstStep(ScramTalk(c.T, user, "x"))
	_, salt, ok := strings.Cut(first, ",")
	if !ok {
		c.T.Fatalf("the first answer for %q is %q", user, first)
	}
	return salt
}

// Challenged asks for a challenge and returns its answer.
func (c *Client) Challenged(password string) string {
	c.T.Helper()
	c.Send("#challenge")
	words := Words(c.Read())
	if len(words) != 3 || words[0] != "@ret" || words[1] != "#challenge" || len(words[2]) < 32 {
		c.T.Fatalf("#challenge: got %q", words)
	}
	sum := md5.Sum([]byte(words[2] + password))
	return "md5:" + hex.EncodeToString(sum[:])
}
