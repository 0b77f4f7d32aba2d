package wire

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Listed asks for a list and returns the words of the line that begins with a
// name, or nil if none does.
func (c *Client) Listed(command, name string) []string {
	c.T.Helper()
	c.Send(command)
	words := Words(c.Read())
	if len(words) != 3 || words[0] != "@ret" {
		c.T.Fatalf("%s: got %q", command, words)
	}
	n, _ := strconv.ParseInt(words[2], 10, 64)
	var found []string
	for range n {
		if words := Words(c.Read()); words[0] == name {
			found = words
		}
	}
	return found
}

// WantLeft expects a name on a list with so many seconds left, which are in its
// column; -1: not on it at all.
func (c *Client) WantLeft(command, name string, want int64) {
	c.T.Helper()
	column := map[string]int{"#listrooms": 3, "#listgroups": 5, "#listmessages": 5}[command]
	words := c.Listed(command, name)
	switch {
	case words == nil && want >= 0:
		c.T.Fatalf("%s does not show %s, want it with %d s", command, name, want)
	case words != nil && want < 0:
		c.T.Fatalf("%s shows %q, want it gone", command, words)
	case words != nil && words[column] != strconv.FormatInt(want, 10):
		c.T.Fatalf("%s shows %q, want %d s", command, words, want)
	}
}

// Number asks for a status number.
func (c *Client) Number(what string) int64 {
	c.T.Helper()
	c.Send("#" + what + "status")
	return StatusNumber(c.T, c.Read())
}

// StatusNumber returns the number in "@ret #<what>status <n>".
func StatusNumber(t testing.TB, line string) int64 {
	words := Words(line)
	if len(words) != 3 || !strings.HasSuffix(words[1], "status") {
		t.Errorf("got %q, want a status number", line)
		return 0
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || n <= 0 {
		t.Errorf("got %q, want a status number", line)
	}
	return n
}

// Post posts a message and returns its number.
func (c *Client) Post(heading string, parent, secs int64) int64 {
	c.T.Helper()
	c.Ask(fmt.Sprintf("#postmessage %s %d 1 %d\r\ntext", heading, parent, secs), "@status 0")
	id, _ := strconv.ParseInt(c.Listed("#listmessages", heading)[2], 10, 64)
	return id
}

// GroupID returns the number of the group that the client is in.
func (c *Client) GroupID() int64 {
	c.T.Helper()
	c.Send("#whoami")
	words := Words(c.Read())
	id, _ := strconv.ParseInt(words[len(words)-1], 10, 64)
	return id
}

var (
	word    = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"|[^ \t]+`)
	escaped = regexp.MustCompile(`\\(.)`)
	escape  = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
)

// Words splits a line into its words, and takes the quotes off.
func Words(line string) (words []string) {
	for _, m := range word.FindAllStringSubmatch(line, -1) {
		if strings.HasPrefix(m[0], `"`) {
			m[0] = escaped.ReplaceAllString(m[1], "$1")
		}
		words = append(words, m[0])
	}
	return words
}

// quote puts a word in quotes, as the protocol has them.
func quote(text string) string { return `"` + escape.Replace(text) + `"` }
