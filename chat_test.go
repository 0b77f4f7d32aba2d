package main

import "testing"

func TestFirstMinute(t *testing.T) {
	srv := startServer(t)
	alice, bob := srv.Guest("alice"), srv.Guest("bob")
	alice.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
	bob.Expect(`@mess #broadcast alice "hello"`)
	bob.Ask("#sendto alice hi there", "@status 0")
	alice.Expect(`@mess #sendto bob "hi there"`)
}
