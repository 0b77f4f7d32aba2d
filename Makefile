# Needs Go and git; the rest comes with them.
.PHONY: build test release clean

build: # the program, for this machine
	CGO_ENABLED=0 go build -trimpath -tags nethttpomithttp2

test:
	go test ./...

release: # binaries and Debian packages for every machine, in dist/
	release/build

clean:
	rm -rf dist homeroom
