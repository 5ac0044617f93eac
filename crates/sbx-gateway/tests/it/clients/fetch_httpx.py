"""One POST with httpx, which offers HTTP/2; a status that is no success ends with 22."""
import sys
import httpx

with httpx.Client(http2=True, timeout=30) as client:
    # The second request uses the connection of the first.
    answer = client.post(sys.argv[1], content="posted")
    answer = client.post(sys.argv[1], content="posted")
    print(answer.http_version, answer.status_code, answer.text)
    sys.exit(0 if answer.is_success else 22)
