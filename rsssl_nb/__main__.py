"`python -m rsssl_nb` is `rsssl-nb`."

from rsssl_nb.cli import main

if __name__ == "__main__":
    main()
