"""One POST with requests; a status that is no success ends with 22, as curl's --fail does."""
import sys
import requests

answer = requests.post(sys.argv[1], data="posted", timeout=30)
print(answer.status_code, answer.text)
sys.exit(0 if answer.ok else 22)
