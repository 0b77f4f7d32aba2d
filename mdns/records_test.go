package mdns

import (
	"strings"
	"testing"
)

// TestLongNames: names that are too long for a part of a name are cut, between two
// characters, with room for a number.
func TestLongNames(t *testing.T) {
	t.Parallel()
	n := names{host: strings.Repeat("h", 63), instance: strings.Repeat("ü", 50), hostNumber: 1, instanceNumber: 1}
	if got, want := n.hostName().String(), n.host+".local."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.instanceName(), strings.Repeat("ü", 31); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	n.hostNumber, n.instanceNumber, n.instance = 12, 12, "v1.2 "+n.instance
	if got, want := n.hostName().String(), strings.Repeat("h", 60)+"-12.local."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.instanceName(), "v1-2 "+strings.Repeat("ü", 26)+" (12)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
