module kekkai.dev/interop/tlog

go 1.25.0

require (
	github.com/go-jose/go-jose/v4 v4.1.3
	golang.org/x/mod v0.37.0
)
